"""Massive activations: single numbers of the residual stream that dwarf all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.errors import BadInput

ABSOLUTE, RATIO = 100.0, 1000.0  # the rule of the paper: above both


@dataclass(frozen=True)
class Largest:
    """The k largest absolute values of each prompt and layer, largest first, with where they stand.

    Shape: values, positions, dimensions [item layer k]; values are absolute, positions and dimensions int64.
    """

    values: Tensor
    positions: Tensor
    dimensions: Tensor


def largest(states: Tensor, padding: Tensor, k: int) -> Largest:
    """The k largest |h| of states [item layer position width]; padding [item position] is 1 where there is a token.

    Raises: BadInput for values that are not finite, as float16 gives where it overflows.
    """
    sizes = _sizes(states, padding).nan_to_num(-1.0)
    values, places = sizes.flatten(2).topk(k, dim=-1)
    width = states.shape[-1]
    return Largest(values, torch.div(places, width, rounding_mode="floor"), places % width)


def median_size(states: Tensor, padding: Tensor) -> Tensor:
    """Median |h| over the tokens and dimensions of each prompt and layer [item layer]; of two middle ones the lower."""
    return _sizes(states, padding).flatten(2).nanmedian(dim=-1).values


def count_massive(states: Tensor, padding: Tensor, absolute: float, ratio: float) -> Tensor:
    """How many |h| lie above `absolute` and are at least `ratio` times the median: [item layer].

    Source: Sun et al. 2024 (absolute 100, ratio 1000); METHODS 1d
    """
    sizes = _sizes(states, padding)
    median = median_size(states, padding)[:, :, None, None]
    return ((sizes > absolute) & (sizes >= ratio * median)).flatten(2).sum(dim=-1).to(sizes.dtype)


def emergence_layer(tops: Tensor) -> int:
    """The layer at whose input massive activations stand for the first time, 1 .. n_layers - 1.

    tops: the largest |h| by layer [layer], n_layers + 1 entries, the last one what leaves the model. The layer is the
    one at whose input `tops` has risen most since the layer before; what the last layer adds is no longer read.
    """
    return int((tops[1:-1] - tops[:-2]).argmax()) + 1


def _sizes(states: Tensor, padding: Tensor) -> Tensor:
    """|h| in float32 at least, NaN at padding."""
    sizes = states.abs() if states.dtype == torch.float64 else states.float().abs()
    is_token = padding.bool()[:, None, :, None]
    if not bool(torch.isfinite(sizes.masked_fill(~is_token, 0.0)).all()):
        raise BadInput("the residual stream holds NaN or infinity: load the model as bfloat16 or float32")
    return sizes.masked_fill(~is_token, torch.nan)
