"""Curves: what a probe measures along an axis, such as layers, sizes of a set, or positions in a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mneme.errors import BadInput


class CurveFacts(NamedTuple):
    """What a probe says of one of its curves: the name of x, the unit of the values and their range (None = open)."""

    x_name: str
    unit: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """One measure of every prompt at the points of an axis.

    Shape: x [point] float64, finite and without repetition; values [item point], NaN where a prompt was not measured
    at a point, or not at all (such as prompts on which something was chosen that is tested on the others).
    Raises: BadInput for any other shape, and for an x that is no place on an axis.
    """

    x: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        """Check the shapes and the axis."""
        if self.x.ndim != 1 or self.x.dtype != torch.float64 or not bool(torch.isfinite(self.x).all()):
            raise BadInput("the x of a curve must be finite float64 numbers [point]")
        if len(self.x) == 0 or len(set(self.x.tolist())) != len(self.x):
            raise BadInput(f"the x of a curve must name each of its points once, not {self.x.tolist()[:20]}")
        if self.values.ndim != 2 or self.values.shape[1] != len(self.x):
            raise BadInput(
                f"the values of a curve must be [item point] with {len(self.x)} points, not {tuple(self.values.shape)}"
            )


def among_all(values: Tensor, tested_on: Tensor) -> Tensor:
    """Values of the tested prompts [tested item point] among all prompts: [item point] float64, NaN elsewhere."""
    found = torch.full((len(tested_on), values.shape[1]), torch.nan, dtype=torch.float64)
    found[tested_on] = values.double()
    return found


def curves_to_arrays(curves: Mapping[str, Curve]) -> dict[str, Tensor]:
    """Curves by measure as flat arrays: `curve.<measure>.x` and `curve.<measure>.values`, none in another's memory."""
    arrays = {}
    for measure, curve in curves.items():
        arrays[f"curve.{measure}.x"] = curve.x.clone()
        arrays[f"curve.{measure}.values"] = curve.values.clone()
    return arrays


def curve_of_arrays(arrays: Mapping[str, Tensor], measure: str) -> Curve:
    """The curve of one measure, out of what `curves_to_arrays` made."""
    return Curve(arrays[f"curve.{measure}.x"], arrays[f"curve.{measure}.values"])
