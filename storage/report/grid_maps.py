"""A measure over two conditions at once, as a map: what a model answers by the length and the depth of a needle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from storage.report.colours import Scale
from storage.report.drawings import number

_CELL = 19
_LEFT, _TOP = 46, 4
_LABEL = 30  # pixels that a label below the map takes


@dataclass(frozen=True)
class GridMap:
    """Values by two conditions; `values` and `counts` [x y] hold NaN and 0 where no prompt lies."""

    names: tuple[str, str]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]


def grid_svg(grid: GridMap, scale: Scale, title: str) -> str:
    """Cells from left to right by the first condition, from top to bottom by the second; empty cells are hatched."""
    width = max(_LEFT + len(grid.xs) * _CELL + 6, 150)
    bottom = _TOP + len(grid.ys) * _CELL
    cells = "".join(_cell(grid, scale, i, j) for i in range(len(grid.xs)) for j in range(len(grid.ys)))
    return (
        f'<svg class="grid-map" viewBox="0 0 {width} {bottom + 32}" style="width:{width}px" role="img"'
        f' aria-label="{escape(title, quote=True)}">{cells}{_labels(grid, bottom)}</svg>'
    )


def scale_svg(scale: Scale, unit: str) -> str:
    """The colours from low to high with their ends and the unit."""
    name = "diverging" if scale.is_centred else "sequential"
    return (
        '<svg class="grid-map" viewBox="0 0 150 42" style="width:150px" aria-hidden="true">'
        f'<rect x="2" y="2" width="146" height="7" rx="2" fill="url(#{name})"/>'
        f'<text x="2" y="22">{number(scale.low)}</text>'
        f'<text x="148" y="22" text-anchor="end">{number(scale.high)}</text>'
        f'<text class="axis" x="2" y="37">{escape(unit)}</text></svg>'
    )


def _cell(grid: GridMap, scale: Scale, i: int, j: int) -> str:
    value, count = grid.values[i][j], grid.counts[i][j]
    is_missing = math.isnan(value)
    fill = "url(#missing)" if is_missing else scale.colour(value)
    said = "no prompt" if is_missing else f"{number(value, 3)}, n {count}"
    place = f"{grid.names[0]} {number(grid.xs[i])}, {grid.names[1]} {number(grid.ys[j])}"
    x, y = _LEFT + i * _CELL, _TOP + j * _CELL
    title = f"<title>{escape(place)}: {said}</title>"
    return f'<rect x="{x}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" fill="{fill}">{title}</rect>'


def _labels(grid: GridMap, bottom: int) -> str:
    parts = [
        f'<text x="{_LEFT - 5}" y="{_TOP + j * _CELL + 13}" text-anchor="end">{number(grid.ys[j])}</text>'
        for j in _spread(len(grid.ys), 1)
    ]
    parts += [
        f'<text x="{_LEFT + i * _CELL + 9}" y="{bottom + 13}" text-anchor="middle">{number(grid.xs[i])}</text>'
        for i in _spread(len(grid.xs), math.ceil(_LABEL / _CELL))
    ]
    middle = (_TOP + bottom) // 2
    parts.append(
        f'<text class="axis" x="{_LEFT + len(grid.xs) * _CELL // 2}" y="{bottom + 28}" text-anchor="middle">'
        f"{escape(grid.names[0])}</text>"
        f'<text class="axis" x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})">'
        f"{escape(grid.names[1])}</text>"
    )
    return "".join(parts)


def _spread(n: int, least: int) -> Sequence[int]:
    """Which of `n` cells are labelled: about eight of them at most, `least` cells apart."""
    return range(0, n, max(least, math.ceil(n / 8)))
