"""Prompts for `planted.colors_model`: every order of the three colors, each of them asked for as often."""

from __future__ import annotations

from itertools import permutations

import torch

from mneme.batch import Batch
from mneme.promptset import Promptset
from tests.planted import COLORS, COLORS_END, FIRST_ID


def color_prompts() -> Promptset:
    """18 prompts [first, color, color, color, END] with the labels of the promptset colored_objects."""
    rows = [(order, asked) for order in permutations(COLORS) for asked in range(3)]
    ids = torch.tensor([[FIRST_ID, *order, COLORS_END] for order, _ in rows])
    others = [[place for place in range(3) if place != asked] for _, asked in rows]
    labels = {
        "correct_color": torch.tensor([asked + 1 for _, asked in rows]),
        "wrong_color_0": torch.tensor([places[0] + 1 for places in others]),
        "wrong_color_1": torch.tensor([places[1] + 1 for places in others]),
        "end": torch.full((len(rows),), 4),
    }
    return Promptset(
        Batch(ids, torch.full((len(rows),), 5), labels),
        corrupt=Batch.of(ids.flip(0)),
        correct_ids=torch.tensor([[order[asked]] for order, asked in rows]),
        wrong_ids=torch.tensor([[row[0][place] for place in places] for row, places in zip(rows, others, strict=True)]),
        facts={"bos_mode": "eot_as_bos", "offset": 1},
    )
