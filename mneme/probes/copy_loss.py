"""How well a model predicts tokens that it has seen before."""

from __future__ import annotations

from torch import Tensor

from mneme.copies import predicting_positions
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="nats",
    low=0.0,
    high=None,
    site="token_scores",
    source="Olsson et al. 2022; METHODS 1a",
)
def copy_loss(scores: TokenScores, prompts: Promptset) -> Tensor:
    """Mean loss on copy 2, over the tokens that copy 1 makes known.

    Shape:  [item]
    Unit:   nats per token
    Range:  0 .. ; on the control without repetition these tokens cannot be known
    Source: METHODS 1a (behavioural twin)
    """
    return -scores.log_prob[:, predicting_positions(prompts, 2, "copy_loss")].mean(dim=1)
