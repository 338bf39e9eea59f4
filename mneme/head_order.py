"""Which heads come first, and on which prompts that was decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mneme.controls import Head
from mneme.errors import NotApplicable
from mneme.promptset import Promptset


@dataclass(frozen=True)
class Ranking:
    """Items [item layer head] of the probe by which an intervention takes heads.

    is_elsewhere: they are items of other prompts than the intervention's: nothing was chosen on those, and all of them
    are tested. Else heads are ranked on one half of the prompts and tested on the other.
    """

    scores: Tensor
    is_elsewhere: bool = False

    def chosen(self, prompts: Promptset, seed: int) -> tuple[list[Head], Tensor]:
        """Heads, highest first, and on which of the prompts they are tested: bool [item].

        Raises: NotApplicable for fewer than two prompts or clusters, unless heads are ranked elsewhere.
        """
        if self.is_elsewhere:
            return order_of_heads(self.scores), torch.ones(len(prompts), dtype=torch.bool)
        ranked_on = split_items(prompts, seed)
        return order_of_heads(self.scores[ranked_on]), ~ranked_on


def order_of_heads(ranking: Tensor) -> list[Head]:
    """Heads by their mean score over the prompts, highest first; ties by layer, then head; unmeasured ones left out.

    Shape: ranking [item layer head].
    Source: METHODS 0 (ties)
    """
    mean = ranking.double().nanmean(dim=0)
    n_heads = mean.shape[1]
    flat = mean.reshape(-1)
    order = torch.argsort(-flat, stable=True).tolist()
    return [divmod(each, n_heads) for each in order if not bool(flat[each].isnan())]


def split_items(prompts: Promptset, seed: int) -> Tensor:
    """A random half of the prompts, clusters kept whole: bool [item]; the other half is larger by one if need be.

    Raises: NotApplicable for fewer than two prompts or clusters.
    """
    groups = torch.arange(len(prompts)) if prompts.clusters is None else prompts.clusters
    names = np.unique(groups.numpy())
    if len(names) < 2:
        raise NotApplicable("heads are ranked on one half of the prompts and tested on the other: give two at least")
    chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    return torch.from_numpy(np.isin(groups.numpy(), chosen))
