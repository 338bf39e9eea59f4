"""Keys and values of the positions before a restart, handed to each layer when it runs and not before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True)
class Prefix:
    """The first `length` positions of stored prompts, one prompt for each unit.

    Shape: keys, values by layer [item kv_head position width]; items [unit] int64, the prompt that each unit is of.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    items: Tensor
    length: int

    def cache(self) -> Cache:
        """The prefix in the form in which transformers takes it; nothing is copied for layers that run no attention."""
        return Cache(layers=[_StoredLayer(*pair, self) for pair in zip(self.keys, self.values, strict=True)])


class _StoredLayer(DynamicLayer):  # type: ignore[misc]
    def __init__(self, keys: Tensor, values: Tensor, prefix: Prefix) -> None:
        super().__init__()
        self.stored = keys, values
        self.items = prefix.items
        self.n_held = prefix.length
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix and of the new positions: [unit kv_head key width]."""
        keys, values = (
            _joined(old, self.items, self.n_held, new)
            for old, new in zip(self.stored, (key_states, value_states), strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """How many positions lie before the new ones."""
        return self.n_held


def _joined(stored: Tensor, items: Tensor, n_prefix: int, new: Tensor) -> Tensor:
    """stored[items] at the prefix, then `new`, each copied once."""
    joined = new.new_empty(*new.shape[:2], n_prefix + new.shape[2], new.shape[3])
    torch.index_select(stored[:, :, :n_prefix], 0, items, out=joined[:, :, :n_prefix])
    joined[:, :, n_prefix:] = new
    return joined
