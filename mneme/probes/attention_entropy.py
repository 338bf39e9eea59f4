"""How spread out attention is."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.attention_shares import distributions, row_mean
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of the largest entropy",
    low=0.0,
    high=1.0,
    site="attention_inputs",
    min_tokens=16,
    one_length=True,
    source="Gu et al. 2024; METHODS 1c",
)
def attention_entropy(
    layer: AttentionInputs,
    prompts: Promptset,  # noqa: ARG001  all probes take prompts
    *,
    exclude_first: bool = False,
) -> Tensor:
    """Entropy of each head's attention, normalised by that of uniform attention over the keys that the query sees.

    Shape:  [item head]
    Unit:   -sum_k A ln A / ln(keys seen), mean over queries with at least two keys; ln(q + 1) without a window
    Range:  0 (one key) .. 1 (uniform); NaN = no such query
    exclude_first: drop column 0 and renormalise; ln(q) then normalises.
    Source: METHODS 1c; differs from it in: a sliding window normalises by the keys inside it
    """
    found = []
    for queries, rows in layer.row_chunks():
        share = distributions(rows, exclude_first)
        seen = (queries + 1).clamp(max=layer.window or layer.n_keys)
        if exclude_first:
            seen = seen - (torch.ones_like(seen) if layer.window is None else (queries < layer.window).to(seen.dtype))
        entropy = -torch.xlogy(share, share).sum(dim=-1)
        largest = torch.where(seen >= 2, seen.to(share.dtype).log(), torch.nan)
        found.append((entropy / largest).clamp(0.0, 1.0))
    return row_mean(torch.cat(found, dim=-1))
