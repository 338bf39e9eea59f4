"""Attention to the token that came after the earlier occurrence of the current one: prefix matching."""

from __future__ import annotations

from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.attention_shares import is_repeated, matched_shares, offset_shares, row_mean
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
def induction(layer: AttentionInputs, prompts: Promptset, *, exclude_first: bool = False) -> Tensor:
    """Share of attention that each head puts on what followed the query's token before (prefix matching).

    Shape:  [item head]
    Unit:   fraction of attention, mean over the queries of the later copies; on other text over queries whose token
            occurred before
    Range:  0 .. 1; NaN = nothing repeats, or all targets lie outside the window
    exclude_first: drop column 0 and renormalise the rest of the row (heads rest there when nothing matches).
    Source: METHODS 1a (ind): A[q, q - N + 1] on repeated tokens and their controls (same offsets),
            S(q) = {1 <= k < q : x_(k-1) = x_q} on other text
    """
    if is_repeated(prompts.facts):
        return row_mean(offset_shares(layer, prompts.facts, 1, exclude_first))
    return row_mean(matched_shares(layer, prompts.clean.ids, 1, exclude_first))
