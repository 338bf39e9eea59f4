"""Prompts that `planted.ioi_model` solves: [first, name, filler, name, filler, giver, filler, END], in both orders."""

from __future__ import annotations

import torch

from mneme.batch import Batch
from mneme.promptset import Promptset
from tests.planted import FIRST_ID, IOI_END, IOI_NAMES


def ioi_prompts(n_items: int = 40, seed: int = 0) -> Promptset:
    """Clean and ABC prompts; two orders of names, each told in two wordings (clusters), which differ in the fillers."""
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(len(IOI_NAMES), generator=generator)[:5] + IOI_NAMES.start for _ in range(n_items)]
    names = torch.stack(draws)
    is_first = torch.arange(n_items) % 2 == 0  # the indirect object stands first
    wording = torch.arange(n_items) // 2 % 2
    io, s = names[:, 0], names[:, 1]
    clean = _ids(torch.where(is_first, io, s), torch.where(is_first, s, io), s, wording)
    corrupt = _ids(names[:, 2], names[:, 3], names[:, 4], wording)
    s1 = torch.where(is_first, 3, 1)
    labels = {"io": torch.where(is_first, 1, 3), "s1": s1, "s1_next": s1 + 1}
    labels |= {"s2": torch.full((n_items,), 5), "end": torch.full((n_items,), 7)}
    return Promptset(
        Batch(clean, torch.full((n_items,), 8), labels),
        corrupt=Batch.of(corrupt),
        correct_ids=io[:, None],
        wrong_ids=s[:, None],
        clusters=2 * wording + is_first.long(),
        facts={"corrupt": "abc", "bos_mode": "eot_as_bos", "offset": 1},
    )


def _ids(one: torch.Tensor, two: torch.Tensor, three: torch.Tensor, wording: torch.Tensor) -> torch.Tensor:
    filler = 90 + 3 * wording
    first, end = torch.full_like(one, FIRST_ID), torch.full_like(one, IOI_END)
    return torch.stack([first, one, filler, two, filler + 1, three, filler + 2, end], dim=1)
