"""A right-padded batch of token ids with named positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mneme.errors import BadInput


@dataclass(frozen=True)
class Batch:
    """Token ids, right-padded, with the length of each item and named positions.

    Shape: ids [item position] int64; lengths [item] int64, 1 .. positions; labels name -> [item] int64 positions.
    Raises: BadInput when shapes disagree or a label lies outside its item.
    """

    ids: Tensor
    lengths: Tensor
    labels: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and label bounds."""
        if self.ids.ndim != 2 or self.ids.dtype != torch.int64 or self.ids.numel() == 0:
            raise BadInput(f"batch ids must be a non-empty int64 [item position] tensor, not {tuple(self.ids.shape)}")
        if self.lengths.shape != self.ids.shape[:1]:
            raise BadInput(f"batch lengths must be one per item ({len(self.ids)}), not {tuple(self.lengths.shape)}")
        if int(self.lengths.min()) < 1 or int(self.lengths.max()) > self.ids.shape[1]:
            raise BadInput(f"batch lengths must lie in 1..{self.ids.shape[1]}")
        for name, positions in self.labels.items():
            if positions.shape != self.lengths.shape:
                raise BadInput(f"position label '{name}' must name one position per item")
            if bool((positions < 0).any()) or bool((positions >= self.lengths).any()):
                raise BadInput(f"position label '{name}' lies outside its item")

    @classmethod
    def of(cls, ids: Tensor | Batch) -> Batch:
        """A batch from equal-length ids [item position], or the batch itself."""
        if isinstance(ids, Batch):
            return ids
        if ids.ndim != 2:
            raise BadInput(f"ids must be [item position], not {tuple(ids.shape)}")
        return cls(ids, torch.full((ids.shape[0],), ids.shape[1], dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def select(self, items: slice | Tensor) -> Batch:
        """The named items, cut to the longest of them."""
        lengths = self.lengths[items]
        longest = int(lengths.max())
        labels = {name: positions[items] for name, positions in self.labels.items()}
        return Batch(self.ids[items, :longest], lengths, labels)

    @property
    def is_full(self) -> bool:
        """Whether no item is padded."""
        return bool((self.lengths == self.ids.shape[1]).all())

    @property
    def padding(self) -> Tensor:
        """1 where there is a token, 0 where there is padding: [item position] int64, the models' attention_mask."""
        positions = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (positions[None, :] < self.lengths[:, None]).to(torch.int64)
