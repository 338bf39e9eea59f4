"""Attention that rests on the first token."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import number_between
from mneme.attention import AttentionInputs
from mneme.attention_shares import entry_shares, row_mean
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of attention",
    low=0.0,
    high=1.0,
    site="attention_inputs",
    min_tokens=16,
    one_length=True,
    source="Gu et al. 2024; Xiao et al. 2023; METHODS 1c",
)
def first_token_sink(
    layer: AttentionInputs,
    prompts: Promptset,  # noqa: ARG001  all probes take prompts
    *,
    eps: float | None = None,
) -> Tensor:
    """Importance alpha of the first token, or whether it exceeds `eps`.

    Shape:  [item head]
    Unit:   eps None: alpha, the mean of column 0 over the rows that can see it; else 1 where alpha > eps, 0 where
            not, so that the mean over items is Sink_eps of the paper (eps = 0.3)
    Range:  0 .. 1; NaN = fewer than two tokens. Uniform causal attention has alpha = H_T / T, not 1 / T
    Source: METHODS 1c (alpha, Sink_eps)
    """
    bound = None if eps is None else number_between("first_token_sink.eps", eps, 0, 1)
    queries = torch.arange(layer.n_queries, device=layer.query.device)
    alpha = row_mean(entry_shares(layer, queries, torch.zeros_like(queries)))
    alpha = alpha.masked_fill((layer.lengths < 2)[:, None], torch.nan)
    if bound is None:
        return alpha
    return torch.where(alpha.isnan(), alpha, (alpha > bound).to(alpha.dtype))
