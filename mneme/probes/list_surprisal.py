"""How surprising the nouns of one list are, whether or not they were read before."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import one_of
from mneme.list_surprisal import LISTS, mean_bits, noun_bits, noun_places
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="bits",
    low=0.0,
    high=None,
    site="token_scores",
    source="Armeni, Honey, Linzen 2022; METHODS 9",
)
def list_surprisal(scores: TokenScores, prompts: Promptset, *, which: str = "list2") -> Tensor:
    """Mean surprisal of the nouns of a list, the first left out as in `repeat_surprisal`.

    It needs no other list, so that a second list can be measured where no first one was told.
    Shape:  [item]
    Unit:   bits a noun, each one token
    Range:  0 .. ; log2 of the vocabulary for a uniform guess
    which:  `list1` or `list2`
    Raises: BadInput for another list; NotApplicable where the promptset does not name its nouns
    Source: METHODS 9 (control without a first list)
    """
    name = one_of("list_surprisal.which", which, LISTS)
    return mean_bits(noun_bits(scores.log_prob, noun_places(prompts, name, "list_surprisal")))
