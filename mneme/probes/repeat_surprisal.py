"""How much of a list a model remembers, word for word, when it reads the list again."""

from __future__ import annotations

from torch import Tensor

from mneme.list_surprisal import LISTS, mean_bits, noun_bits, noun_places, percent_of_first
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


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
    Raises: NotApplicable without the labels list1_0, list2_0, ... (`verbatim_list` with `ends: full`, `noun_list_grid`)
    Source: METHODS 9 (ratio of means within a list, median over lists)
    """
    first, second = (
        mean_bits(noun_bits(scores.log_prob, noun_places(prompts, name, "repeat_surprisal"))) for name in LISTS
    )
    return percent_of_first(second, first)
