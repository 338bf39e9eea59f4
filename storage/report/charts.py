"""Charts of the page: a measure along an axis, a line per model with its interval.

An axis is drawn as its numbers ask: logarithmic where they span a wide range above zero, linear otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from storage.report.drawings import number

WIDTH, HEIGHT = 238, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 13, 7, 32
_WIDE = 24.0  # greatest by least number from which an axis is logarithmic
_GAP, _LINE = 27, 11  # pixels between labels at least, across and upwards
Point = tuple[float, float, float | None, float | None]


@dataclass(frozen=True)
class Look:
    """Colour by number (None is grey) and whether lines are dashed, as controls and untrained models are."""

    colour: int | None
    is_dashed: bool = False

    @property
    def svg(self) -> str:
        """Attributes of a stroke."""
        return f'class="curve {self.shade}"' + (' stroke-dasharray="4 3"' if self.is_dashed else "")

    @property
    def shade(self) -> str:
        """The class that colours it."""
        return "cx" if self.colour is None else f"c{self.colour}"


@dataclass(frozen=True)
class Series:
    """One line: points (x, value, low, high) by rising x; the ends are None where there is no interval."""

    name: str
    look: Look
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axis:
    """The ends of an axis, and whether it is logarithmic; `marks` are the numbers that may be labelled."""

    low: float
    high: float
    is_log: bool
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a number lies, from 0 to 1; numbers beyond an end lie on it."""
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(max(value, self.low)))
            if self.is_log
            else (self.low, self.high, value)
        )
        return 0.5 if high == low else min(max((at - low) / (high - low), 0.0), 1.0)


def axis_of_places(xs: Sequence[float]) -> Axis:
    """The axis on which something is measured, from the least to the greatest place."""
    places = sorted(set(xs))
    is_log = len(places) > 2 and places[0] > 0 and places[-1] / places[0] >= _WIDE
    return Axis(places[0], places[-1], is_log, tuple(places))


def axis_of_values(values: Sequence[float], unit: str) -> Axis:
    """The axis of what is measured: 0 to 1 where all lie in it, logarithmic for ranks, else round numbers and zero."""
    low, high = min([0.0, *values]), max([0.0, *values])
    if unit == "rank" and high > 1:
        top = 10.0 ** math.ceil(math.log10(high))
        return Axis(1.0, top, True, tuple(10.0**power for power in range(round(math.log10(top)) + 1)))
    if low == 0 and high <= 1 and (high > 0.2 or high == 0):
        return Axis(0.0, 1.0, False, (0.0, 0.5, 1.0))
    grain = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    low, high = math.floor(low / grain + 1e-9) * grain, math.ceil(high / grain - 1e-9) * grain
    marks = (low, 0.0, high) if low < 0 < high else (low, (low + high) / 2, high)
    return Axis(low, high, False, marks)


def chart_svg(title: str, series: Sequence[Series], axes: tuple[Axis, Axis], names: tuple[str, str]) -> str:
    """The lines over `axes` (x, y), labelled with `names` (of x, unit of y), each with its interval as a shade."""
    across, upwards = axes
    shades = "".join(_shade(each, across, upwards) for each in series)
    lines = "".join(_line(each, across, upwards) for each in series)
    return (
        f'<svg class="curves chart" viewBox="0 0 {WIDTH} {HEIGHT}" style="width:{WIDTH}px" role="img"'
        f' aria-label="{escape(title, quote=True)}">{_frame(across, upwards, names)}{shades}{lines}</svg>'
    )


def key_svg(look: Look) -> str:
    """A short stroke in a look."""
    return f'<svg class="key" viewBox="0 0 22 8" aria-hidden="true"><path {look.svg} d="M0 4H22"/></svg>'


def _x(axis: Axis, value: float) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * axis.share(value), 1)


def _y(axis: Axis, value: float) -> float:
    return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * axis.share(value), 1)


def _frame(across: Axis, upwards: Axis, names: tuple[str, str]) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for value in upwards.marks:
        y = _y(upwards, value)
        parts.append(f'<path class="{"zero" if value == 0 else "grid"}" d="M{_LEFT} {y}H{right}"/>')
        if value == 0 or abs(y - _y(upwards, 0.0)) >= _LINE or upwards.is_log:
            parts.append(f'<text x="{_LEFT - 5}" y="{y + 4}" text-anchor="end">{number(value)}</text>')
    for value in _labelled(across):
        x = _x(across, value)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{bottom + 3}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{_place_text(value)}</text>')
    middle = (_TOP + bottom) // 2
    parts.append(
        f'<text class="axis" x="{(_LEFT + right) // 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(names[0])}</text>'
        f'<text class="axis" x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})">'
        f"{escape(_shortened(names[1]))}</text>"
    )
    return "".join(parts)


def _place_text(value: float) -> str:
    """A place on the axis in two digits behind the point at most."""
    return number(round(value, 2))


def _labelled(axis: Axis) -> list[float]:
    """The places that get a label: as many as have room, the last one among them."""
    kept: list[float] = []
    for value in axis.marks[:-1]:
        is_free = not kept or _x(axis, value) - _x(axis, kept[-1]) >= _GAP
        if is_free and _x(axis, axis.marks[-1]) - _x(axis, value) >= _GAP:
            kept.append(value)
    return [*kept, axis.marks[-1]]


def _shortened(unit: str) -> str:
    """A unit that fits beside the axis."""
    return unit if len(unit) <= 24 else unit[:23] + "…"


def _shade(series: Series, across: Axis, upwards: Axis) -> str:
    ends = [(x, low, high) for x, _, low, high in series.points if low is not None and high is not None]
    if len(ends) < 2:
        return ""
    upper = [f"{_x(across, x)} {_y(upwards, high)}" for x, _, high in ends]
    lower = [f"{_x(across, x)} {_y(upwards, low)}" for x, low, _ in reversed(ends)]
    return f'<path class="spread {series.look.shade}" d="M{"L".join(upper + lower)}Z"/>'


def _line(series: Series, across: Axis, upwards: Axis) -> str:
    points = [f"{_x(across, x)} {_y(upwards, value)}" for x, value, *_ in series.points]
    return f'<path {series.look.svg} d="M{"L".join(points)}"><title>{escape(series.name)}</title></path>'
