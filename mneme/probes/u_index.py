"""How much better an answer is found at the ends of a context than in its middle."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.answers import PairedAnswers, is_right
from mneme.arguments import one_of
from mneme.errors import NotApplicable
from mneme.item_groups import ItemGroups
from mneme.probe import probe
from mneme.promptset import Promptset

COMPARISONS = ("ends_with_middle", "first_with_last")
_ROUNDING = 1e-9


@probe(
    level="behavior",
    unit="difference of accuracies",
    low=-1.0,
    high=1.0,
    site="answer_scores",
    source="Liu et al. 2023; METHODS 15",
)
def u_index(
    scores: PairedAnswers, prompts: Promptset, *, condition: str = "place", compare: str = "ends_with_middle"
) -> Tensor:
    """(Accuracy at the first place + at the last) / 2 - mean accuracy in the middle third, on the same items.

    Shape:  [item]; one number per group of prompts that differ in place (a cluster), on its prompt at the first place,
            NaN on the others and in a group that lacks one of the places
    Unit:   difference of accuracies; an answer is right as in `answer_accuracy`
    Range:  -1 .. 1; 0 = the place does not matter, 1 = read at both ends only
    condition: which of the promptset's conditions is the place. compare: `ends_with_middle`, or `first_with_last`:
            primacy minus recency
    Raises: NotApplicable where prompts lack the condition, or no group has the first, the last and a middle place
    Source: METHODS 15 (U-index)
    """
    one_of("u_index.compare", compare, COMPARISONS)
    groups = ItemGroups.of(is_right(scores.clean), prompts, condition, "u_index")
    places = groups.condition[~groups.condition.isnan()]
    low, high = (float(places.min()), float(places.max())) if len(places) else (0.0, 0.0)
    third = (high - low) / 3
    first, last = groups.mean_between(low, low), groups.mean_between(high, high)
    middle = groups.mean_between(low + third - _ROUNDING, high - third + _ROUNDING)
    index = first - last if compare == "first_with_last" else (first + last) / 2 - middle
    index = index.masked_fill((groups.condition != low) | middle.isnan(), torch.nan).float()
    if third == 0 or bool(index.isnan().all()):
        raise NotApplicable(
            f"u_index needs groups of prompts at the first, the last and a middle {condition}, and there is none: "
            "use lost_in_the_middle"
        )
    return index
