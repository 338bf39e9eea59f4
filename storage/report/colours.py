"""Colours of numbers: one scale from low to high, or one centred at zero, the same in the page and in PNG files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

SEQUENTIAL = ("#3b0f5c", "#3b528b", "#21918c", "#5ec962", "#fde725")
DIVERGING = ("#2166ac", "#67a9cf", "#ededed", "#ef8a62", "#b2182b")


@dataclass(frozen=True)
class Scale:
    """The numbers at the ends of the colours; `is_centred` puts zero in the middle."""

    low: float
    high: float
    is_centred: bool

    @property
    def stops(self) -> tuple[str, ...]:
        """Colours from low to high, evenly spaced."""
        return DIVERGING if self.is_centred else SEQUENTIAL

    def colour(self, value: float) -> str:
        """The colour of a number as #rrggbb; numbers beyond the ends take the colour of the end."""
        width = self.high - self.low
        place = 0.5 if width == 0 else min(max((value - self.low) / width, 0.0), 1.0)
        left = min(int(place * (len(self.stops) - 1)), len(self.stops) - 2)
        share = place * (len(self.stops) - 1) - left
        ends = zip(_channels(self.stops[left]), _channels(self.stops[left + 1]), strict=True)
        return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in ends)


def scale_of(values: Iterable[float], bounds: tuple[float | None, float | None] = (None, None)) -> Scale:
    """The scale for some numbers (NaN is left out).

    Centred at zero when a number is negative; else from bound to bound where both are known, 0 to 1 where all numbers
    lie in it, and from the least to the greatest otherwise.
    """
    known = [value for value in values if not math.isnan(value)] or [0.0]
    least, most = min(known), max(known)
    low, high = bounds
    if least < 0:
        end = max(-least, most)
        return Scale(-end, end, is_centred=True)
    if low is not None and high is not None:
        return Scale(low, high, is_centred=False)
    return Scale(0.0, 1.0, is_centred=False) if most <= 1 else Scale(min(least, low or 0.0), most, is_centred=False)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
