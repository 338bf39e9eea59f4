"""How far a reader gets who copies an answer from the prompt without understanding it."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.errors import NotApplicable
from mneme.probe import probe
from mneme.promptset import Promptset

TAKES = ("first", "last", "most_frequent")


@probe(
    level="behavior",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    reads="prompts",
    is_accuracy=True,
    source="METHODS 0 (ties)",
)
def copy_baseline(prompts: Promptset, *, take: str = "first") -> Tensor:
    """1 where the correct answer is the candidate that stands first, last or most often in the prompt, else 0.

    Candidates are the correct and the wrong answers, by their token. One that does not stand in the clean prompt is
    never copied, so a prompt that holds none of them earns nothing.
    Shape:  [item]
    Unit:   fraction of prompts; candidates that stand there equally often share the credit: 1/3 where the correct one
            is among three. A guess that stays silent at a tie would look weaker than it is
    Range:  0 .. 1; near chance where copying blindly does not help
    take:   `first`, `last` or `most_frequent`
    Raises: NotApplicable without correct and wrong answers; BadInput for another `take`
    Source: METHODS 0 (1/#ties)
    """
    one_of("copy_baseline.take", take, TAKES)
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("copy_baseline needs correct and wrong answers, and this promptset lacks them")
    correct, wrong = (_merits(prompts, answers, take) for answers in (prompts.correct_ids, prompts.wrong_ids))
    best = torch.cat([correct, wrong], dim=1).amax(dim=1, keepdim=True)
    n_right, n_wrong = ((side == best).sum(dim=1) for side in (correct, wrong))
    is_there = best[:, 0] > -torch.inf
    return torch.where(is_there, n_right / (n_right + n_wrong), 0.0).float()


def _merits(prompts: Promptset, answers: Tensor, take: str) -> Tensor:
    """How much each answer deserves to be copied: [item answer]; minus infinity where it does not stand there."""
    batch = prompts.clean
    is_token = batch.padding.bool()[:, None, :]
    stands = (batch.ids[:, None, :] == answers[:, :, None]) & (answers >= 0)[:, :, None] & is_token
    position = torch.arange(batch.ids.shape[1], dtype=torch.float32)
    if take == "most_frequent":
        merit = stands.sum(dim=2).float()
    elif take == "last":
        merit = torch.where(stands, position, -1.0).amax(dim=2)
    else:
        merit = -torch.where(stands, position, torch.inf).amin(dim=2)
    return merit.masked_fill(~stands.any(dim=2), -torch.inf)
