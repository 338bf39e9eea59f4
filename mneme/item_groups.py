"""Prompts of one cluster that differ in a condition: their mean at some of its values, group by group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.errors import NotApplicable
from mneme.promptset import Promptset


@dataclass(frozen=True)
class ItemGroups:
    """Values of prompts [item] beside their cluster [item] and the condition in which the prompts of one differ [item].

    A promptset without clusters is one group.
    """

    values: Tensor
    clusters: Tensor
    condition: Tensor

    @classmethod
    def of(cls, values: Tensor, prompts: Promptset, condition: str, who: str) -> ItemGroups:
        """The groups of a promptset; raises NotApplicable where it lacks the condition."""
        if condition not in prompts.conditions:
            known = ", ".join(sorted(prompts.conditions)) or "none"
            raise NotApplicable(f"{who} needs prompts with the condition '{condition}', and these have {known}")
        clusters = prompts.clusters
        return cls(
            values,
            torch.zeros(len(prompts), dtype=torch.int64) if clusters is None else clusters,
            prompts.conditions[condition],
        )

    def mean_between(self, low: float, high: float) -> Tensor:
        """Mean over the prompts of an item's group whose condition lies in low .. high: [item], NaN where none does."""
        _, group = torch.unique(self.clusters, return_inverse=True)
        counted = ((self.condition >= low) & (self.condition <= high)).double()
        total = torch.zeros(int(group.max()) + 1, dtype=torch.float64)
        n = total.index_add(0, group, counted)
        return (total.index_add(0, group, counted * self.values.double()) / n)[group]
