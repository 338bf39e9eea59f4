"""Faithfulness of circuits over their size, and matrices of what circuits share, as PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.report.colours import Scale, scale_of
from storage.report.curves import COLOURS, DASHES
from storage.report.figures import ink_on, two_digits

FAITHFUL = 0.85  # of the model's behavior: what circuits are asked for (METHODS 6e)
_COLUMNS = 3
_PANEL_INCHES = (4.4, 3.2)
_INCHES_PER_CELL, _INCHES_OF_BAR = 0.52, 0.3
_INCHES_PER_LETTER, _INCHES_PER_SMALL, _INCHES_PER_LINE = 0.085, 0.066, 0.2  # of titles; letters and lines of legends
Point = tuple[float, float, float | None, float | None]


@dataclass(frozen=True)
class FaithfulnessLine:
    """One way to find circuits: points (share of edges, faithfulness, low, high); low, high None without interval."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class FaithfulnessPanel:
    """One behavior of one model: a line for each way, and points (share, mean, low, high) of random circuits."""

    title: str
    lines: tuple[FaithfulnessLine, ...]
    random: tuple[Point, ...] = ()


def faithfulness_png(panels: Sequence[FaithfulnessPanel], title: str) -> bytes:
    """A PNG of faithfulness over the share of edges, in logarithms: lines with their intervals, random circuits grey.

    The dotted line is 0.85. Circuits without edges have no place on the axis and are left out. The axis of values
    holds 0, 1 and all lines; random circuits may leave it. Needs no display.
    """
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    n_columns = min(_COLUMNS, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    handles = _legend(names)
    width = max(n_columns * _PANEL_INCHES[0], len(title) * _INCHES_PER_LETTER + 0.2)
    n_beside = max(1, int(width / (max(len(each.get_label()) for each in handles) * _INCHES_PER_SMALL + 0.6)))
    height = n_rows * _PANEL_INCHES[1] + 0.5 + _INCHES_PER_LINE * math.ceil(len(handles) / n_beside)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.02, ha="left", parse_math=False)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, names)
    legend = figure.legend(handles=handles, loc="outside lower left", ncols=n_beside, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _png(FigureCanvasAgg(figure))


def _draw(axes: Any, panel: FaithfulnessPanel, names: Sequence[str]) -> None:
    random = [point for point in panel.random if point[0] > 0]
    if random:
        shares, means, *ends = zip(*random, strict=True)
        axes.plot(shares, means, color="#8d8a84", linewidth=1.2)
        _band(axes, shares, ends, "#8d8a84", 0.3)
    known = [0.0, 1.0]
    for line in panel.lines:
        points = [point for point in line.points if point[0] > 0]
        if not points:
            continue
        shares, values, *ends = zip(*points, strict=True)
        axes.plot(shares, values, marker="o", markersize=3.5, linewidth=1.6, **_look(names.index(line.name)))
        _band(axes, shares, ends, _look(names.index(line.name))["color"], 0.15)
        known += [each for each in values if not math.isnan(each)]
    room = 0.06 * (max(known) - min(known))
    axes.axhline(FAITHFUL, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", ylim=(min(known) - room, max(known) + room))
    axes.set_xlabel("share of edges", fontsize=8)
    axes.set_ylabel("faithfulness", fontsize=8)
    axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
    axes.tick_params(labelsize=7)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _band(
    axes: Any, shares: Sequence[float], ends: Sequence[Sequence[float | None]], colour: str, alpha: float
) -> None:
    if all(each is not None for end in ends for each in end):
        axes.fill_between(shares, *ends, color=colour, alpha=alpha, linewidth=0)


def _look(place: int) -> dict[str, Any]:
    dash = DASHES[place // len(COLOURS) % len(DASHES)]
    style = (0, tuple(float(each) for each in dash.split())) if dash else "solid"
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": style}


def _legend(names: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D  # noqa: PLC0415  with the figure

    handles = [Line2D([], [], label=name, marker="o", markersize=3.5, **_look(at)) for at, name in enumerate(names)]
    return [
        *handles,
        Line2D([], [], label="random circuits of the same size", color="#8d8a84", linewidth=5, alpha=0.6),
        Line2D([], [], label=f"{FAITHFUL} of the model's behavior", color="#555555", linestyle=":"),
    ]


def overlap_png(matrix: Sequence[Sequence[float]], names: Sequence[str], title: str, unit: str = "Jaccard") -> bytes:
    """A PNG of what circuits share: rows and columns are behaviors, framed cells on the diagonal are ceilings.

    Shape: matrix [behavior behavior], in 0 .. 1; on the diagonal what circuits of two halves of the prompts share,
    which an overlap can reach at best. NaN is grey and hatched. Needs no display.
    """
    return matrix_png(matrix, (names, names), title, unit, has_frames=True)


def matrix_png(
    matrix: Sequence[Sequence[float]],
    names: tuple[Sequence[str], Sequence[str]],
    title: str,
    unit: str,
    *,
    has_frames: bool = False,
) -> bytes:
    """A PNG of numbers by named rows and columns, such as the faithfulness of a row's circuit on a column's prompts.

    Shape: matrix [row column]; names: of the rows, then of the columns. NaN is grey and hatched; `has_frames` frames
    the diagonal. Needs no display.
    """
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows, columns = names
    scale = scale_of(value for row in matrix for value in row)
    widest, tallest = (max(map(len, each)) * _INCHES_PER_LETTER for each in names)
    width = max(len(columns) * _INCHES_PER_CELL + widest + 1.6, len(title) * _INCHES_PER_LETTER + 0.2)
    figure = Figure(figsize=(width, len(rows) * _INCHES_PER_CELL + tallest + 0.9), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set(facecolor="#c8c8c8", hatch="////", edgecolor="#8a8a8a")
    colours = LinearSegmentedColormap.from_list("scores", scale.stops)
    high = scale.high if scale.high > scale.low else scale.low + 1
    image = axes.imshow(matrix, cmap=colours, vmin=scale.low, vmax=high, aspect="equal", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.tick_params(labelsize=8, length=0)
    _write(axes, matrix, scale, has_frames)
    figure.suptitle(title, fontsize=10, x=0.02, ha="left", parse_math=False)
    bar = figure.colorbar(image, ax=axes, format="%.3g", shrink=0.85, fraction=_INCHES_OF_BAR / width, aspect=24)
    bar.set_label(unit, fontsize=8, parse_math=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", bbox_inches="tight")  # square cells push names out
    return buffer.getvalue()


def _write(axes: Any, matrix: Sequence[Sequence[float]], scale: Scale, has_frames: bool) -> None:
    """The numbers in their cells, and frames on the diagonal."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415  with the figure

    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if not math.isnan(value):
                colour = scale.colour(value)
                ink = ink_on(*(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)))
                axes.text(column, row, two_digits(value), color=ink, fontsize=7.5, ha="center", va="center")
        if has_frames:
            axes.add_patch(
                Rectangle((row - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="#d55e00", linewidth=1.6)
            )


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
