"""The memory of a list as an index between -1 and 1: the change of surprisal over the sum of both readings."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.list_surprisal import LEAST_BITS, LISTS, mean_bits, noun_bits, noun_places
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="share of both surprisals",
    low=-1.0,
    high=1.0,
    site="token_scores",
    group="median",
    source="Armeni, Honey, Linzen 2022; METHODS 9",
)
def repeat_surprisal_index(scores: TokenScores, prompts: Promptset) -> Tensor:
    """(s2 - s1) / (s2 + s1), s1 and s2 the mean surprisals of the nouns of list 1 and 2 but the first of each.

    It says what `repeat_surprisal` says, for where a list that misleads must not weigh without bound.
    Shape:  [item], one per list
    Unit:   share of both surprisals; the group value is the median over lists, with the mean beside it
    Range:  -1 (list 2 is known for sure) .. 1; 0 where list 1 did not help. NaN where list 1 surprises by less than one
            bit a noun
    Raises: NotApplicable without the labels list1_0, list2_0, ... (`verbatim_list` with `ends: full`, `noun_list_grid`)
    Source: METHODS 9 (alternative index)
    """
    who = "repeat_surprisal_index"
    first, second = (mean_bits(noun_bits(scores.log_prob, noun_places(prompts, name, who))) for name in LISTS)
    return ((second - first) / (second + first)).masked_fill(first < LEAST_BITS, torch.nan)
