"""How many tokens back attention reaches."""

from __future__ import annotations

from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.attention_distances import mean_distances
from mneme.attention_shares import row_mean
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="tokens",
    low=0.0,
    high=None,
    site="attention_inputs",
    min_tokens=16,
    one_length=True,
    source="Gu et al. 2024; METHODS 1c",
)
def attention_distance(
    layer: AttentionInputs,
    prompts: Promptset,  # noqa: ARG001  all probes take prompts
    *,
    exclude_first: bool = False,
) -> Tensor:
    """Mean distance between a query and the keys that it attends to.

    Shape:  [item head]
    Unit:   tokens, mean over queries of sum_k A[q, k] (q - k)
    Range:  0 (only itself) .. T - 1; NaN = fewer than two tokens. Uniform causal attention: (T - 1) / 4
    exclude_first: drop column 0 and renormalise the rest of the row.
    Source: METHODS 1c (distance)
    """
    return row_mean(mean_distances(layer, exclude_first))
