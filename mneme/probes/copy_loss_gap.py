"""How much a repetition helps."""

from __future__ import annotations

from torch import Tensor

from mneme.copies import predicting_positions
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="nats",
    low=None,
    high=None,
    site="token_scores",
    source="Olsson et al. 2022; METHODS 1a",
)
def copy_loss_gap(scores: TokenScores, prompts: Promptset) -> Tensor:
    """Mean loss on copy 2 minus mean loss on copy 1, at the same places.

    Shape:  [item]
    Unit:   nats per token
    Range:  negative where the model copies, about 0 where it does not
    Source: METHODS 1a (behavioural twin)
    """
    first = scores.log_prob[:, predicting_positions(prompts, 1, "copy_loss_gap")].mean(dim=1)
    second = scores.log_prob[:, predicting_positions(prompts, 2, "copy_loss_gap")].mean(dim=1)
    return first - second
