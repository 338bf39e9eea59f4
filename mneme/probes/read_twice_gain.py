"""What a second reading adds to the accuracy on the same items."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.answers import PairedAnswers, is_right
from mneme.errors import NotApplicable
from mneme.item_groups import ItemGroups
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="difference of accuracies",
    low=-1.0,
    high=1.0,
    site="answer_scores",
    source="Arora et al. 2024 (Just read twice); METHODS 15",
)
def read_twice_gain(scores: PairedAnswers, prompts: Promptset) -> Tensor:
    """Accuracy after two readings minus accuracy after one, item by item.

    Shape:  [item]; one number per item (a cluster of two prompts), on its prompt read twice, NaN on the other
    Unit:   difference of accuracies; an answer is right as in `answer_accuracy`
    Range:  -1 .. 1; 0 = the second reading changes nothing
    Raises: NotApplicable without the condition `reads`, or where no item is read once and twice
    Source: METHODS 15 (acc(2x) - acc(1x), paired)
    """
    groups = ItemGroups.of(is_right(scores.clean), prompts, "reads", "read_twice_gain")
    gain = groups.mean_between(2, 2) - groups.mean_between(1, 1)
    gain = gain.masked_fill(groups.condition != 2, torch.nan).float()
    if bool(gain.isnan().all()):
        raise NotApplicable("read_twice_gain needs items that are read once and twice: use read_twice")
    return gain
