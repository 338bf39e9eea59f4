"""Heat maps of heads as PNG files, for MLflow and for slides."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from storage.report.colours import Scale, scale_of

_INCHES_PER_CELL = 0.32
_INCHES_PER_WRITTEN_CELL = 0.44
_INCHES_PER_LETTER = 0.08  # of the title, at most, on average
_INCHES_OF_BAR = 0.3
_INCHES_AT_MOST = 24.0
_WRITTEN_CELLS = (12, 16)  # rows and columns up to which the numbers stand in their cells
_DARK = 0.18  # relative luminance below which white is easier to read than black (WCAG 2)


def heat_map_png(matrix: Sequence[Sequence[float]], title: str, unit: str, scale: Scale | None = None) -> bytes:
    """A PNG of numbers by layer (rows, first layer on top) and head (columns); NaN is grey and hatched.

    Shape: matrix [layer head], every row of the same length; up to 12 x 16 cells bear their numbers. Without `scale`
    the colours fit the numbers (see `scale_of`). Needs no display.
    """
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    scale = scale or scale_of(value for row in matrix for value in row)
    n_layers, n_heads = len(matrix), len(matrix[0])
    is_written = n_layers <= _WRITTEN_CELLS[0] and n_heads <= _WRITTEN_CELLS[1]
    cell = _INCHES_PER_WRITTEN_CELL if is_written else _INCHES_PER_CELL
    width, height, lines = _layout(n_layers, n_heads, cell, title)
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set(facecolor="#c8c8c8", hatch="////", edgecolor="#8a8a8a")
    colours = LinearSegmentedColormap.from_list("scores", scale.stops)
    high = scale.high if scale.high > scale.low else scale.low + 1
    image = axes.imshow(matrix, cmap=colours, vmin=scale.low, vmax=high, aspect="equal", interpolation="nearest")
    axes.set(xlabel="head", ylabel="layer", xticks=_ticks(n_heads), yticks=_ticks(n_layers))
    if is_written:
        _write_numbers(axes, image, matrix)
    figure.suptitle(lines, fontsize=9, x=0.02, ha="left", parse_math=False)
    # labels that do not hang on the size of the bar: the room they take is reserved before its size is known
    ticks = [scale.low + (high - scale.low) * quarter / 4 for quarter in range(5)]
    thin = _INCHES_OF_BAR / width
    bar = figure.colorbar(image, ax=axes, ticks=ticks, format="%.3g", shrink=0.85, fraction=thin, aspect=24)
    bar.set_label(unit, fontsize=8, parse_math=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _layout(n_layers: int, n_heads: int, cell: float, title: str) -> tuple[float, float, str]:
    """Width and height in inches, and the title in lines that fit the width."""
    width, height = max(3.2, n_heads * cell + 1.8), max(2.4, n_layers * cell + 1.4)
    lines = [title] if _inches(title) <= width else two_lines(title)
    width = max(width, *(_inches(line) for line in lines))
    return min(width, _INCHES_AT_MOST), min(height, _INCHES_AT_MOST), "\n".join(lines)


def _inches(line: str) -> float:
    return len(line) * _INCHES_PER_LETTER + 0.2


def two_lines(title: str) -> list[str]:
    """The title cut at that ' / ' which leaves the shortest lines; whole where it has none."""
    parts = title.split(" / ")
    cuts = [[" / ".join(parts[:at]) + " /", " / ".join(parts[at:])] for at in range(1, len(parts))]
    return min(cuts, key=lambda lines: max(map(len, lines)), default=[title])


def _write_numbers(axes: Any, image: Any, matrix: Sequence[Sequence[float]]) -> None:
    for layer, row in enumerate(matrix):
        for head, value in enumerate(row):
            if not math.isnan(value):
                ink = ink_on(*image.to_rgba(value)[:3])
                axes.text(head, layer, two_digits(value), color=ink, fontsize=6.5, ha="center", va="center")


def ink_on(red: float, green: float, blue: float) -> str:
    """Black or white, whichever is easier to read on a colour (channels in [0, 1], sRGB)."""
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "white" if luminance < _DARK else "black"


def two_digits(value: float) -> str:
    """A number in two significant digits, short enough for a cell."""
    text = f"{value:z#.2g}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"
    digits, _, exponent = text.replace("-", "−", 1 if value < 0 else 0).partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits.rstrip(".")


def _ticks(count: int) -> range:
    return range(0, count, 1 + (count - 1) // 16)
