"""Attention to the earlier occurrences of the same token."""

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
    source="Elhage et al. 2021; Wang et al. 2022; METHODS 1a",
)
def duplicate_token(layer: AttentionInputs, prompts: Promptset, *, exclude_first: bool = False) -> Tensor:
    """Share of attention that each head puts on earlier copies of the query's own token.

    Shape:  [item head]
    Unit:   fraction of attention, mean over queries whose token occurred before
    Range:  0 .. 1; NaN = no token repeats (on the control without repetition: the same index offsets)
    exclude_first: drop column 0 and renormalise the rest of the row.
    Source: METHODS 1a (dup): exact offsets where copies are exact or absent, S(q) = {k < q : x_k = x_q} elsewhere,
            so that it survives in the shuffled control. The two agree where both apply.
    """
    if is_repeated(prompts.facts) and prompts.facts["copy"] != "shuffled":
        return row_mean(offset_shares(layer, prompts.facts, 0, exclude_first))
    return row_mean(matched_shares(layer, prompts.clean.ids, 0, exclude_first))
