"""How much of a list a model remembers, word for word, when it reads the list again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mneme.errors import NotApplicable
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores

LEAST_BITS = 1.0


@probe(
    level="behavior",
    unit="percent of the first surprisal",
    low=0.0,
    high=None,
    site="token_scores",
    group="median",
    source="Armeni, Honey, Linzen 2022; METHODS 9",
)
def repeat_surprisal(scores: TokenScores, prompts: Promptset) -> Tensor:
    """100 x the mean surprisal of the nouns of list 2 over that of the nouns of list 1, at the same places.

    The first noun of each list is left out: nothing but the cue says that it comes. Surprisal is in bits; each noun is
    one token, and separators are not scored.
    Shape:  [item], one per list
    Unit:   percent of the first surprisal; the group value is the median over lists, with the mean beside it
    Range:  0 .. ; 100 where list 1 did not help, above it where list 1 misled. NaN where list 1 surprises by less than
            one bit a noun: there is nothing to remember
    Raises: NotApplicable without the labels list1_0, list2_0, ... (promptset `verbatim_list` with `ends: full`)
    Source: METHODS 9 (ratio of means within a list, median over lists)
    """
    first, second = (_mean_bits(scores, prompts, name) for name in ("list1", "list2"))
    return (100 * second / first).masked_fill(first < LEAST_BITS, torch.nan)


def _mean_bits(scores: TokenScores, prompts: Promptset, name: str) -> Tensor:
    """Mean surprisal of the nouns of a list but the first: [item], bits."""
    labels = prompts.clean.labels
    n_nouns = next(number for number in range(len(labels) + 1) if f"{name}_{number}" not in labels)
    if n_nouns < 2:
        raise NotApplicable(
            f"repeat_surprisal needs two lists of named nouns, and this promptset does not name those of {name}: "
            "use verbatim_list with ends: full"
        )
    places = torch.stack([labels[f"{name}_{number}"] for number in range(1, n_nouns)], dim=1)
    return -scores.log_prob.gather(1, places - 1).mean(dim=1) / math.log(2)
