"""How far back attention reaches, query by query."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.attention_shares import distributions


def mean_distances(layer: AttentionInputs, exclude_first: bool) -> Tensor:
    """sum_k A[q, k] (q - k) for every query: [item head query] tokens; NaN at padding and where nothing remains.

    Source: METHODS 1c
    """
    positions = torch.arange(layer.n_keys, device=layer.query.device)
    found = []
    for queries, rows in layer.row_chunks():
        back = (queries[:, None] - positions).clamp(min=0).to(rows.dtype)
        found.append((distributions(rows, exclude_first) * back).sum(dim=-1))
    return torch.cat(found, dim=-1).masked_fill((layer.lengths < 2)[:, None, None], torch.nan)
