"""Where the copies of a repeated prompt are predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.errors import NotApplicable
from mneme.promptset import Promptset


def predicting_positions(prompts: Promptset, copy: int, who: str) -> Tensor:
    """Positions of copy 1, 2, ... whose next token lies in the same copy: [position] int64.

    In copy 2 and later these next tokens are known from the copy before; the same places in copy 1 are not.
    Raises: NotApplicable for prompts without a known period.
    Source: METHODS 1a (behavioural twin: off+N .. off+2N-2)
    """
    if "period" not in prompts.facts:
        raise NotApplicable(f"{who} needs prompts with a known period, and this promptset has none")
    period, offset = int(prompts.facts["period"]), int(prompts.facts["offset"])
    start = offset + (copy - 1) * period
    return torch.arange(start, start + period - 1)
