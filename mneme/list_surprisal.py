"""Surprisal of the nouns of two lists, the second read after the first: where they stand, and in bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mneme.errors import NotApplicable
from mneme.promptset import Promptset

LISTS = ("list1", "list2")
LEAST_BITS = 1.0  # METHODS 9: a list that surprises less has nothing in it to remember


def noun_places(prompts: Promptset, name: str, who: str) -> Tensor:
    """Position of each noun of a list: [item noun] int64, -1 where the list of an item has no further noun.

    Prompts whose lists differ in length have the labels of the longest; where a list is over, its labels stay at its
    last noun. Raises: NotApplicable without the labels <name>_0, <name>_1, ...
    """
    labels = prompts.clean.labels
    n_nouns = next(number for number in range(len(labels) + 1) if f"{name}_{number}" not in labels)
    if n_nouns < 2:
        raise NotApplicable(
            f"{who} needs two lists of named nouns, and this promptset does not name those of {name}: "
            "use verbatim_list with ends: full, or noun_list_grid"
        )
    places = torch.stack([labels[f"{name}_{number}"] for number in range(n_nouns)], dim=1)
    is_over = places[:, 1:] == places[:, :-1]
    return torch.cat([places[:, :1], places[:, 1:].masked_fill(is_over, -1)], dim=1)


def noun_bits(log_prob: Tensor, places: Tensor) -> Tensor:
    """Surprisal of each noun given all before it: [item noun] bits, NaN where there is none.

    Shape: log_prob [item position] nats, of the token after each position; places as `noun_places` gives them.
    """
    bits = -log_prob.gather(1, (places - 1).clamp_min(0)) / math.log(2)
    return bits.masked_fill(places < 0, torch.nan)


def mean_bits(bits: Tensor) -> Tensor:
    """Mean surprisal of the nouns of a list but the first, of which nothing but the cue says that it comes: [item]."""
    return bits[:, 1:].nanmean(dim=1)


def percent_of_first(second: Tensor, first: Tensor) -> Tensor:
    """Surprisal of a second reading in percent of the first, both in bits; NaN where there was nothing to remember."""
    return (100 * second / first).masked_fill(first < LEAST_BITS, torch.nan)


def predicting_mask(prompts: Promptset, name: str, who: str) -> Tensor:
    """The positions that predict the nouns of a list but the first: [item position] bool."""
    places = noun_places(prompts, name, who)[:, 1:]
    items, nouns = torch.nonzero(places >= 0, as_tuple=True)
    mask = torch.zeros(prompts.clean.ids.shape, dtype=torch.bool)
    mask[items, places[items, nouns] - 1] = True
    return mask
