"""How far back attention reaches, as a fraction of how far it could."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.attention_distances import mean_distances
from mneme.attention_shares import row_mean
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of the way back",
    low=0.0,
    high=1.0,
    site="attention_inputs",
    min_tokens=16,
    one_length=True,
    source="Gu et al. 2024; METHODS 1c",
)
def relative_attention_distance(
    layer: AttentionInputs,
    prompts: Promptset,  # noqa: ARG001  all probes take prompts
    *,
    exclude_first: bool = False,
) -> Tensor:
    """Mean distance between a query and the keys that it attends to, over the distance to the first token.

    Shape:  [item head]
    Unit:   fraction, mean over q >= 1 of sum_k A[q, k] (q - k) / q
    Range:  0 (only itself) .. 1 (only the first token); NaN = fewer than two tokens. Uniform causal attention: 1 / 2
    exclude_first: drop column 0 and renormalise the rest of the row.
    Source: METHODS 1c (distance, relative)
    """
    distances = mean_distances(layer, exclude_first)
    queries = torch.arange(layer.n_queries, device=distances.device)
    return row_mean((distances / queries)[..., 1:].clamp(max=1.0))
