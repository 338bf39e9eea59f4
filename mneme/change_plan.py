"""Where each changed run first differs from the unchanged one: from that layer and position on it must be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WORTHWHILE_TOKENS = 512  # a batch of its own for a shorter prefix pays from about this many tokens on


@dataclass(frozen=True)
class Units:
    """Changed runs, each one prompt under one set: sets, items (places in the group), layer and prefix, all [unit].

    layer: the first layer with a difference, n_layers = there is none; prefix: positions before the first difference.
    """

    sets: Tensor
    items: Tensor
    layer: Tensor
    prefix: Tensor

    def take(self, which: Tensor) -> Units:
        """Some of the units."""
        return Units(self.sets[which], self.items[which], self.layer[which], self.prefix[which])


def plan(differs: Tensor, mask: Tensor, places: Tensor, first_read: Tensor) -> Units:
    """One unit for every set and item, in that order.

    Shape: differs [item layer head position] bool, where the replacement is not what is there; mask [set layer head]
    bool; places [set item] int64, the one position that a set changes, or -1 = all; first_read [item] int64.
    """
    n_sets, n_items = places.shape
    n_layers, n_positions = differs.shape[1], differs.shape[3]
    sets = torch.arange(n_sets, device=mask.device).repeat_interleave(n_items)
    items = torch.arange(n_items, device=mask.device).repeat(n_sets)
    place = places[sets, items]
    first = torch.where(differs.any(dim=3), differs.to(torch.int8).argmax(dim=3), n_positions)
    layer = torch.full_like(sets, n_layers)
    prefix = torch.full_like(sets, n_positions)
    for each in reversed(range(n_layers)):
        at_place = differs[items, each, :, place.clamp(0, n_positions - 1)] & (place < n_positions)[:, None]
        start = torch.where(
            place[:, None] < 0, first[items, each], torch.where(at_place, place[:, None], n_positions)
        ).masked_fill(~mask[sets, each], n_positions)
        start = start.amin(dim=1)
        layer = torch.where(start < n_positions, each, layer)
        prefix = torch.minimum(prefix, start)
    return Units(sets, items, layer, torch.minimum(prefix, first_read[items]))


def same_start(units: Units, layer: int, n_positions: int) -> Iterator[tuple[Tensor, int]]:
    """Groups of the units that start at `layer`: (which, prefix); small groups join the next shorter prefix."""
    waiting = torch.empty(0, dtype=torch.int64, device=units.sets.device)
    chosen = units.layer == layer
    for prefix in sorted(set(units.prefix[chosen].tolist()), reverse=True):
        which = torch.cat([waiting, torch.nonzero(chosen & (units.prefix == prefix))[:, 0]])
        if len(which) * (n_positions - prefix) >= WORTHWHILE_TOKENS:
            yield which, prefix
            waiting = which[:0]
        else:
            waiting = which
    if len(waiting):
        yield waiting, int(units.prefix[waiting].min())
