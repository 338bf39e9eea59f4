"""Prompts that planted models solve: [first, name, filler, name, filler, giver, filler, END], in both orders."""

from __future__ import annotations

import torch

from mneme.batch import Batch
from mneme.promptset import Promptset
from tests.planted import FIRST_ID, IOI_END, IOI_NAMES


def ioi_prompts(n_items: int = 40, seed: int = 0, gap: int = 1) -> Promptset:
    """Clean and ABC prompts; two orders of names, each told in two wordings (clusters), which differ in the fillers.

    gap: fillers after each of the first two names. `planted.ioi_model` wants 1; `planted.ioi_circuit_model` wants 2, so
    that the token before the giver never is the one after the giver's first mention.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(len(IOI_NAMES), generator=generator)[:5] + IOI_NAMES.start for _ in range(n_items)]
    names = torch.stack(draws)
    is_first = torch.arange(n_items) % 2 == 0  # the indirect object stands first
    wording = torch.arange(n_items) // 2 % 2
    io, s = names[:, 0], names[:, 1]
    clean = _ids([torch.where(is_first, io, s), torch.where(is_first, s, io), s], wording, gap)
    corrupt = _ids([names[:, 2], names[:, 3], names[:, 4]], wording, gap)
    second, s2 = 2 + gap, 3 + 2 * gap
    s1 = torch.where(is_first, second, 1)
    labels = {"io": torch.where(is_first, 1, second), "s1": s1, "s1_next": s1 + 1}
    labels |= {"s2": torch.full((n_items,), s2), "end": torch.full((n_items,), s2 + 2)}
    return Promptset(
        Batch(clean, torch.full((n_items,), s2 + 3), labels),
        corrupt=Batch.of(corrupt),
        correct_ids=io[:, None],
        wrong_ids=s[:, None],
        clusters=2 * wording + is_first.long(),
        facts={"corrupt": "abc", "bos_mode": "eot_as_bos", "offset": 1},
    )


def _ids(names: list[torch.Tensor], wording: torch.Tensor, gap: int) -> torch.Tensor:
    fillers = [90 + (2 * gap + 1) * wording + place for place in range(2 * gap + 1)]
    one, two, three = names
    columns = [torch.full_like(one, FIRST_ID), one, *fillers[:gap], two, *fillers[gap:-1], three, fillers[-1]]
    return torch.stack([*columns, torch.full_like(one, IOI_END)], dim=1)
