"""The factors by which the output of a head is multiplied, as the axis of a curve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mneme.errors import BadInput


def alpha_axis(who: str, alphas: object) -> Tensor:
    """The factors in order, 1 among them, which is the unchanged model: [point] float64.

    Raises: BadInput for what is no list of finite numbers.
    """
    if not isinstance(alphas, list | tuple) or not alphas or not all(_is_finite(each) for each in alphas):
        raise BadInput(f"{who}.alphas is {alphas!r}: give a list of numbers, such as [-1, 0, 1, 2]")
    return torch.tensor(sorted({1.0, *map(float, alphas)}), dtype=torch.float64)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
