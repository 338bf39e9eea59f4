"""Prompts for the planted model of two heads at odds: [first, subject, answer, subject]."""

from __future__ import annotations

import torch

from mneme.batch import Batch
from mneme.promptset import Promptset
from tests.planted import FIRST_ID

UNKNOWN = 35  # a token that is no subject of the planted model


def conflict_prompts(n_items: int = 8, n_unknown: int = 0) -> Promptset:
    """Subjects 1, 2, ... whose answer in the context is that of another one; the corrupt prompt is about others.

    The last `n_unknown` ask about tokens that the planted model knows nothing of. Condition `place`: 0, 1, 0, 1, ...
    """
    subjects = torch.arange(1, n_items + 1)
    subjects[n_items - n_unknown :] = UNKNOWN
    said, third = 40 + torch.arange(n_items) % 10 + 11, 40 + torch.arange(n_items) % 9 + 22
    first, end = torch.full((n_items,), FIRST_ID), torch.full((n_items,), 3)
    return Promptset(
        Batch(
            torch.stack([first, subjects, said, subjects], dim=1),
            end + 1,
            {"context_answer": end - 1, "question_first": end, "question": end, "end": end},
        ),
        corrupt=Batch.of(torch.stack([first, subjects % 9 + 12, third, subjects % 9 + 12], dim=1)),
        correct_ids=said[:, None],
        wrong_ids=subjects[:, None] + 40,
        facts={"offset": 1},
        conditions={"place": (torch.arange(n_items) % 2).double()},
    )
