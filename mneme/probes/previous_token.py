"""Attention to the token just before."""

from __future__ import annotations

import torch
from torch import Tensor

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
    source="Elhage et al. 2021; Olsson et al. 2022; METHODS 1a",
)
def previous_token(layer: AttentionInputs, prompts: Promptset) -> Tensor:  # noqa: ARG001  all probes take prompts
    """Share of attention that each head puts on the token before, mean over the queries that have one.

    Shape:  [item head]
    Unit:   fraction of attention, mean over q = 1 .. T-1 of A[q, q-1]
    Range:  0 (never looks there) .. 1 (looks nowhere else); NaN = no token before, or outside the window
    Source: METHODS 1a (prev)
    """
    queries = torch.arange(1, layer.n_queries, device=layer.query.device)
    return row_mean(entry_shares(layer, queries, queries - 1))
