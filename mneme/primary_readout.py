"""The readout that interventions on a promptset move: larger is better."""

from __future__ import annotations

import torch

from mneme.copies import predicting_positions
from mneme.promptset import Promptset
from mneme.readouts import Readout, log_probability, logit_difference


def primary_readout(prompts: Promptset) -> Readout:
    """Logit difference where prompts have answers; else mean log-probability of the tokens that can be known.

    With a period these are the tokens of copy 2, else all next tokens. Unit: nats; a difference of logits is one of
    log-probabilities.
    """
    if prompts.correct_ids is not None and prompts.wrong_ids is not None:
        return logit_difference(prompts.correct_ids, prompts.wrong_ids)
    batch = prompts.clean
    if "period" in prompts.facts:
        mask = torch.zeros(batch.ids.shape, dtype=torch.bool)
        mask[:, predicting_positions(prompts, 2, "the readout")] = True
    else:
        mask = torch.arange(batch.ids.shape[1])[None] < batch.lengths[:, None] - 1
    return log_probability(batch, mask)
