"""Heat maps of heads as PNG files, for MLflow and for slides."""

from __future__ import annotations

import io
from collections.abc import Sequence

from storage.report.colours import Scale, scale_of

_INCHES_PER_CELL = 0.32


def heat_map_png(matrix: Sequence[Sequence[float]], title: str, unit: str, scale: Scale | None = None) -> bytes:
    """A PNG of numbers by layer (rows, first layer on top) and head (columns); NaN is grey and hatched.

    Shape: matrix [layer head], every row of the same length. Without `scale` the colours fit the numbers (see
    `scale_of`). Needs no display.
    """
    # matplotlib takes a second to import, and most who import this module draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    scale = scale or scale_of(value for row in matrix for value in row)
    n_layers, n_heads = len(matrix), len(matrix[0])
    size = (max(3.2, n_heads * _INCHES_PER_CELL + 1.8), max(1.8, n_layers * _INCHES_PER_CELL + 1.2))
    figure = Figure(figsize=(min(size[0], 24), min(size[1], 24)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set(facecolor="#c8c8c8", hatch="////", edgecolor="#8a8a8a")
    colours = LinearSegmentedColormap.from_list("scores", scale.stops)
    high = scale.high if scale.high > scale.low else scale.low + 1
    image = axes.imshow(matrix, cmap=colours, vmin=scale.low, vmax=high, aspect="equal", interpolation="nearest")
    axes.set(xlabel="head", ylabel="layer", xticks=_ticks(n_heads), yticks=_ticks(n_layers))
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    figure.colorbar(image, ax=axes, shrink=0.8).set_label(unit, fontsize=8, parse_math=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _ticks(count: int) -> range:
    return range(0, count, 1 + (count - 1) // 16)
