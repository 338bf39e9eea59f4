"""Drawings of the page as SVG text: heat maps of heads and numbers with their intervals.

They take the colour of text from the page, so that they fit light and dark. Everything that comes from results is a
number or is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from storage.report.colours import DIVERGING, SEQUENTIAL, Scale

_CELL = 18
_LEFT, _TOP = 36, 4
_MOST_TITLES = 1024  # of cells with a tooltip: more would make a heavy page


def number(value: float | None, decimals: int | None = None) -> str:
    """A number with so many decimals, or else with three significant digits; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    text = (
        f"{value:,.{decimals}f}" if decimals is not None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    )
    return text.replace("-", "−")


def decimals_for(domain: tuple[float, float]) -> int:
    """Decimals that show three significant digits of the largest number of a column."""
    largest = max(abs(domain[0]), abs(domain[1]))
    return 3 if largest == 0 else min(max(3 - math.ceil(math.log10(largest)), 0), 6)


def shared_definitions() -> str:
    """What the drawings of a page refer to: the hatching of missing cells and the two colour bars."""
    bars = "".join(
        f'<linearGradient id="{name}">'
        + "".join(f'<stop offset="{i / (len(stops) - 1):.2f}" stop-color="{each}"/>' for i, each in enumerate(stops))
        + "</linearGradient>"
        for name, stops in (("sequential", SEQUENTIAL), ("diverging", DIVERGING))
    )
    hatching = (
        '<pattern id="missing" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#b8b8b8"/><rect width="2" height="6" fill="#8f8f8f"/></pattern>'
    )
    return f'<svg width="0" height="0" class="definitions" aria-hidden="true"><defs>{hatching}{bars}</defs></svg>'


def heat_map(matrix: Sequence[Sequence[float]], scale: Scale, unit: str) -> str:
    """Numbers by layer (rows, first layer on top) and head (columns), with a colour bar below.

    Shape: matrix [layer head]; NaN cells are hatched.
    """
    n_layers, n_heads = len(matrix), max(len(row) for row in matrix)
    width = max(_LEFT + n_heads * _CELL + 4, 210)
    bottom = _TOP + n_layers * _CELL
    height = bottom + 70
    cells = "".join(_cells(matrix, scale, with_titles=n_layers * n_heads <= _MOST_TITLES))
    return (
        f'<svg class="heat-map" viewBox="0 0 {width} {height}" style="width:{width}px" role="img"'
        f' aria-label="heat map of layers and heads">{cells}{_axes(n_layers, n_heads)}'
        f"{_colour_bar(scale, unit, bottom + 32, width)}</svg>"
    )


def _cells(matrix: Sequence[Sequence[float]], scale: Scale, *, with_titles: bool) -> list[str]:
    cells = []
    for layer, row in enumerate(matrix):
        for head, value in enumerate(row):
            fill = "url(#missing)" if math.isnan(value) else scale.colour(value)
            x, y = _LEFT + head * _CELL, _TOP + layer * _CELL
            said = "not measurable" if math.isnan(value) else number(value)
            title = f"<title>layer {layer}, head {head}: {said}</title>" if with_titles else ""
            cells.append(f'<rect x="{x}" y="{y}" width="17" height="17" rx="2" fill="{fill}">{title}</rect>')
    return cells


def _axes(n_layers: int, n_heads: int) -> str:
    bottom = _TOP + n_layers * _CELL
    rows = "".join(
        f'<text x="{_LEFT - 6}" y="{_TOP + layer * _CELL + 13}" text-anchor="end">{layer}</text>'
        for layer in range(0, n_layers, 1 + (n_layers - 1) // 16)
    )
    columns = "".join(
        f'<text x="{_LEFT + head * _CELL + 9}" y="{bottom + 12}" text-anchor="middle">{head}</text>'
        for head in range(0, n_heads, 1 + (n_heads - 1) // 16)
    )
    middle = _TOP + n_layers * _CELL // 2
    names = (
        f'<text class="axis" x="8" y="{middle}" text-anchor="middle" transform="rotate(-90 8 {middle})">layer</text>'
        f'<text class="axis" x="{_LEFT + n_heads * _CELL // 2}" y="{bottom + 24}" text-anchor="middle">head</text>'
    )
    return rows + columns + names


def _colour_bar(scale: Scale, unit: str, y: int, width: int) -> str:
    name = "diverging" if scale.is_centred else "sequential"
    right = width - 6
    return (
        f'<rect x="{_LEFT}" y="{y}" width="{right - _LEFT}" height="7" rx="2" fill="url(#{name})"/>'
        f'<text x="{_LEFT}" y="{y + 19}">{number(scale.low)}</text>'
        f'<text class="axis" x="{_LEFT}" y="{y + 33}">{escape(unit)}</text>'
        f'<text x="{right}" y="{y + 19}" text-anchor="end">{number(scale.high)}</text>'
    )


def interval(
    value: float | None,
    ends: tuple[float | None, float | None],
    domain: tuple[float, float],
    band: tuple[float | None, float | None] = (None, None),
) -> str:
    """A dot with its interval on the line from `domain[0]` to `domain[1]`; `band` is a grey range behind it."""
    if value is None:
        return ""
    width = (domain[1] - domain[0]) or 1.0

    def at(number: float) -> float:
        return round(4 + 112 * min(max((number - domain[0]) / width, 0.0), 1.0), 1)

    parts = ['<line class="base" x1="4" y1="8" x2="116" y2="8"/>']
    if domain[0] < 0 < domain[1]:
        parts.append(f'<line class="zero" x1="{at(0)}" y1="1" x2="{at(0)}" y2="15"/>')
    if band[0] is not None and band[1] is not None:
        extent = max(at(band[1]) - at(band[0]), 1)
        parts.append(f'<rect class="band" x="{at(band[0])}" y="3" width="{extent:.1f}" height="10" rx="2"/>')
    if ends[0] is not None and ends[1] is not None:
        parts.append(f'<line class="ends" x1="{at(ends[0])}" y1="8" x2="{at(ends[1])}" y2="8"/>')
    parts.append(f'<circle cx="{at(value)}" cy="8" r="3.4"/>')
    return f'<svg class="interval" viewBox="0 0 120 16" aria-hidden="true">{"".join(parts)}</svg>'
