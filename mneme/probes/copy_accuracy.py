"""How often a model's first choice is the token that it has seen before."""

from __future__ import annotations

from torch import Tensor

from mneme.copies import predicting_positions
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="fraction of tokens",
    low=0.0,
    high=1.0,
    site="token_scores",
    is_accuracy=True,
    source="Olsson et al. 2022; METHODS 1a",
)
def copy_accuracy(scores: TokenScores, prompts: Promptset) -> Tensor:
    """Share of tokens of copy 2 that are the model's first choice, over the tokens that copy 1 makes known.

    Shape:  [item]
    Unit:   fraction of tokens; a tie is no credit
    Range:  0 .. 1; chance is one over the number of ids that were drawn from
    Source: METHODS 1a (behavioural twin)
    """
    return scores.is_top1[:, predicting_positions(prompts, 2, "copy_accuracy")].mean(dim=1)
