"""Curves over training steps as a PNG file, for MLflow and for slides."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from storage.report.curves import COLOURS, DASHES, Line, Panel, place, step_text, step_ticks

_COLUMNS = 3
_PANEL_INCHES = (4.4, 3.1)
_LEGEND_INCHES = 0.19  # per line of the legend
_MOST_NAMED = 16  # lines in a legend


def curves_png(panels: Sequence[Panel], title: str) -> bytes:
    """One picture of all panels: lines over log(step + 1) with their intervals, t50 as a diamond with its interval.

    Needs no display.
    """
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    n_columns = min(_COLUMNS, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    n_named = max(min(len(panel.lines), _MOST_NAMED + 1) for panel in panels)
    height = n_rows * (_PANEL_INCHES[1] + _LEGEND_INCHES * n_named) + 0.5
    figure = Figure(figsize=(n_columns * _PANEL_INCHES[0], height), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.02, ha="left", parse_math=False)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _draw(axes: Any, panel: Panel) -> None:
    for line in panel.lines:
        _draw_line(axes, line)
    ticks = step_ticks(panel.last_step)
    axes.set_xticks([place(step) for step in ticks], [step_text(step) for step in ticks])
    axes.set(ylim=panel.domain, xlim=(-0.1, place(panel.last_step) * 1.02))
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(panel.unit, fontsize=8, parse_math=False)
    axes.set_title(f"{panel.title}\n{panel.place}", fontsize=9, loc="left", parse_math=False)
    axes.tick_params(labelsize=7)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    if len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"and {len(names) - _MOST_NAMED} more"]
        handles = handles[: len(names)]
    legend = axes.legend(handles, names, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_line(axes: Any, line: Line) -> None:
    colour, dash = COLOURS[line.look[0]], DASHES[line.look[1]]
    steps = [place(step) for step, *_ in line.points]
    style = (0, tuple(float(each) for each in dash.split())) if dash else "solid"
    axes.plot(steps, [value for _, value, *_ in line.points], color=colour, linestyle=style, label=legend_text(line))
    lows, highs = [low for _, _, low, _ in line.points], [high for *_, high in line.points]
    if None not in lows and None not in highs:
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    if line.t50 is None:
        return
    y = line.value_at(line.t50)
    if line.t50_low is not None and line.t50_high is not None:
        axes.plot([place(line.t50_low), place(line.t50_high)], [y, y], color=colour, linewidth=2.5)
    axes.plot([place(line.t50)], [y], marker="D", markersize=6, color=colour, markeredgecolor="white")


def legend_text(line: Line) -> str:
    """The line's name, with t50 and its interval where it has a phase change."""
    if line.t50 is None:
        return line.name
    interval = "" if line.t50_low is None else f" [{line.t50_low:,.0f}, {line.t50_high:,.0f}]"
    return f"{line.name}: t50 at step {line.t50:,.0f}{interval}"
