"""The table of behaviors as a PNG file, for MLflow and for slides."""

from __future__ import annotations

import io
from typing import Any

from storage.report.behaviors import THRESHOLD, Grid, Mark

_INK, _BASELINE, _CHANCE = "#245e8a", "#9c4a00", "#8d8a84"
_INCHES_PER_BEHAVIOR, _INCHES_PER_SEED, _INCHES_PER_MODEL = 0.16, 0.14, 1.75
_INCHES_PER_LETTER = 0.085
_SPREAD = 0.7  # share of a behavior's row that its seeds take


def behaviors_png(grid: Grid, title: str) -> bytes:
    """One picture of a grid: rows are behaviors, columns models, marks as in `behavior_svg`. Needs no display."""
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    most = max(len(marks) for marks in grid.marks.values())
    height = len(grid.behaviors) * (_INCHES_PER_BEHAVIOR + _INCHES_PER_SEED * most) + 1.8
    names = max(map(len, grid.behaviors)) * _INCHES_PER_LETTER
    width = max(7.2, len(grid.models) * _INCHES_PER_MODEL + names, len(title) * _INCHES_PER_LETTER)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    columns = figure.subplots(1, len(grid.models), squeeze=False, sharey=True)[0]
    for axes, model in zip(columns, grid.models, strict=True):
        _draw(axes, grid, model)
    columns[0].set_yticks(range(len(grid.behaviors)), grid.behaviors, parse_math=False)
    columns[0].set_ylim(len(grid.behaviors) - 0.5, -0.5)
    figure.legend(handles=_legend(), loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _draw(axes: Any, grid: Grid, model: str) -> None:
    for row, behavior in enumerate(grid.behaviors):
        marks = grid.of(behavior, model)
        for place, mark in enumerate(marks):
            _draw_mark(axes, mark, row + _SPREAD * ((place + 0.5) / len(marks) - 0.5), _SPREAD / len(marks))
    for row in range(len(grid.behaviors) - 1):
        axes.axhline(row + 0.5, color="#e3e0da", linewidth=0.6)
    axes.axvline(THRESHOLD, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_title(model, fontsize=9, parse_math=False)
    axes.set(xlim=(-0.05, 1.05), xticks=(0, 0.5, 1))
    axes.set_xticklabels(["0", "0.5", "1"])
    axes.set_xlabel("accuracy", fontsize=8)
    axes.tick_params(labelsize=8, left=False)
    axes.grid(axis="x", color="#e3e0da", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_mark(axes: Any, mark: Mark, y: float, room: float) -> None:
    if mark.chance is not None:
        axes.plot([mark.chance] * 2, [y - room / 2, y + room / 2], color=_CHANCE, linewidth=2.2, solid_capstyle="butt")
    if mark.best_baseline is not None:
        axes.plot([mark.best_baseline], [y], marker="x", color=_BASELINE, markersize=4.5, clip_on=False)
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [y, y], color=_INK, linewidth=1.4)
    if mark.accuracy is not None:
        axes.plot([mark.accuracy], [y], clip_on=False, **_look(mark.is_learnt))


def _look(is_learnt: bool | None) -> dict[str, Any]:
    """Shape and filling of a mark."""
    filling = _INK if is_learnt else "white"
    marker = "D" if is_learnt is None else "o"
    return {"marker": marker, "markersize": 5, "color": _INK, "markerfacecolor": filling, "linestyle": "none"}


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D  # noqa: PLC0415  with the figure

    bar: dict[str, Any] = {
        "color": _CHANCE,
        "marker": "|",
        "markersize": 10,
        "markeredgewidth": 2.2,
        "linestyle": "none",
    }
    return [
        Line2D([], [], label="learnt", **_look(True)),
        Line2D([], [], label="not learnt", **_look(False)),
        Line2D([], [], label="a deciding baseline is missing", **_look(None)),
        Line2D([], [], label="95% interval", color=_INK, linewidth=1.4),
        Line2D([], [], label="chance", **bar),
        Line2D([], [], label="best baseline", color=_BASELINE, marker="x", markersize=5, linestyle="none"),
        Line2D([], [], label=f"{THRESHOLD}, to be exceeded by the interval", color="#555555", linestyle=":"),
    ]
