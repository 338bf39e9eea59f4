"""Checks of parameters that a person wrote: one sentence with the place and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mneme.errors import BadInput


def whole_number(place: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int within bounds; raises BadInput for anything else, a bool included."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise BadInput(f"{place} is {value!r}: give a whole number {bounds}")
    return value


def number_between(place: str, value: Any, low: float, high: float) -> float:
    """`value` as a float with low <= value < high; raises BadInput for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
        raise BadInput(f"{place} is {value!r}: give a number from {low} to below {high}")
    return float(value)


def one_of(place: str, value: Any, choices: Sequence[str]) -> str:
    """`value` if it is one of the choices; raises BadInput otherwise."""
    if value not in choices:
        raise BadInput(f"{place} is {value!r}: choose one of {', '.join(choices)}")
    return str(value)
