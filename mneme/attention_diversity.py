"""How alike the heads of a layer attend, and how differently sharply (METHODS 21)."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.errors import BadInput


def head_cosine(attention: Tensor) -> Tensor:
    """Mean cosine between the attention of two heads, all items and rows as one vector, per layer [layer].

    Shape:  [layer item head query key] -> [layer]; METHODS' s is its mean over layers
    Range:  0 .. 1. The causal mask alone makes heads alike: uniform against identity is sqrt(H_T / T)
    Raises: BadInput for fewer than two heads
    Source: METHODS 21 (C)
    """
    _refuse_one_head(attention)
    flat = attention.transpose(1, 2).flatten(2)  # [layer head entry]
    units = flat / flat.norm(dim=-1, keepdim=True)
    cosines: Tensor = units @ units.transpose(-1, -2)
    n_heads = cosines.shape[-1]
    off_diagonal = cosines.sum(dim=(-1, -2)) - cosines.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    found: Tensor = off_diagonal / (n_heads * (n_heads - 1))
    return found


def entropy_spread(attention: Tensor) -> Tensor:
    """Population standard deviation over heads of their mean entropy per row, nats, per layer [layer].

    Shape:  [layer item head query key] -> [layer]; METHODS' sigma_H is its mean over layers
    Range:  0 .. ln(T) / 2
    Raises: BadInput for fewer than two heads
    Source: METHODS 21 (C)
    """
    _refuse_one_head(attention)
    entropy: Tensor = -torch.special.xlogy(attention, attention).sum(dim=-1)  # [layer item head query]
    return entropy.mean(dim=(1, 3)).std(dim=-1, correction=0)


def _refuse_one_head(attention: Tensor) -> None:
    if attention.ndim != 5 or attention.shape[2] < 2:
        raise BadInput(
            "diversity is between heads: give attention [layer item head query key] of at least two heads, "
            f"not {tuple(attention.shape)}"
        )
