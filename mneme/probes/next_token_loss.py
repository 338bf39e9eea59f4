"""How well a model predicts the next token."""

from __future__ import annotations

from torch import Tensor

from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores


@probe(
    level="behavior",
    unit="nats",
    low=0.0,
    high=None,
    site="token_scores",
    source="METHODS 16 (losses)",
)
def next_token_loss(scores: TokenScores, prompts: Promptset) -> Tensor:  # noqa: ARG001  all probes take prompts
    """Mean loss over all next tokens of a prompt.

    Shape:  [item]
    Unit:   nats per token
    Range:  0 .. ; ln(vocabulary) for a uniform guess; NaN = a single token
    """
    return -scores.log_prob.nanmean(dim=1)
