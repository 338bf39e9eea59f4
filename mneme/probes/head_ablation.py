"""What a model loses without a head, and without the top heads of a probe, against matched random heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets, ablate_heads
from mneme.arguments import one_of, whole_number
from mneme.controls import ControlSets, Head, matched_head_sets
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import order_of_heads, split_items
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

MOST_DISTINCT = 2**62  # more distinct sets than an int64 counts are all the same to a reader


@probe(
    level="intervention",
    unit="nats",
    low=None,
    high=None,
    ranks_with="rank_by",
    effect_name="{kind}_ablation",
    source="Wang et al. 2022; Zhang and Nanda 2023; METHODS 3, 4",
)
def head_ablation(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Tensor,
    *,
    probe_seed: int,
    progress: Progress = silent,
    kind: str = "mean",
    rank_by: str = "induction",  # noqa: ARG001  says whose items `ranking` holds
    ks: Sequence[int] = (1, 2, 3, 4, 6, 8),
    n_draws: int = 100,
) -> dict[str, Tensor]:
    """Effect of ablating each head alone, and the top-k heads of another probe together.

    Unit:   nats: readout of the clean run minus readout of the ablated run, larger = more harm. The readout is the
            promptset's primary one (log-probability of what can be copied, or a logit difference)
    kind:   `mean` (each head's output replaced by its mean over the promptset, per position) or `zero`
    ks:     sizes of the sets; heads are ranked by `ranking` [item layer head] on one half of the prompts, and the
            effect is measured on the other half only
    n_draws: random sets per k, with as many heads in each layer and none of the tested ones; fewer where fewer exist

    Returns: clean [item]; effects [item layer head]; k [k]; top_heads [rank, 2] as (layer, head); set_effects
    [item k] and control_effects [item k draw], NaN on the ranking half and beyond the draws; n_draws, n_distinct [k].
    Raises: NotApplicable for fewer than two prompts or clusters, or a probe that measured no head.
    Source: METHODS 3 (delta = m(clean) - m(ablated)), METHODS 4 (split A / split B, per-layer-matched controls)
    """
    how: Literal["mean", "zero"] = "mean" if one_of("head_ablation.kind", kind, ("mean", "zero")) == "mean" else "zero"
    n_draws = whole_number("head_ablation.n_draws", n_draws, 1)
    ranked_on = split_items(prompts, probe_seed)
    order = order_of_heads(ranking[ranked_on])
    sizes = _sizes(ks, len(order))
    reference = prompts.clean if how == "mean" else None
    readout = primary_readout(prompts)
    ablated = ablate_heads(lm, prompts.clean, readout, how, reference, progress=progress).cpu()
    clean = ablate_head_sets(lm, prompts.clean, readout, [()]).cpu()
    sets = _Sets(order, sizes, lm, n_draws, probe_seed)
    tested = prompts.select(~ranked_on)
    its_readout = primary_readout(tested)
    changed = ablate_head_sets(lm, tested.clean, its_readout, sets.all, how, reference, progress=progress).cpu()
    return {
        "clean": clean[:, 0],
        "effects": clean[:, :, None] - ablated,
        "top_heads": torch.tensor(order[: max(sizes)]),
        **sets.arrays(clean[~ranked_on] - changed, ranked_on),
    }


def _sizes(ks: object, n_ranked: int) -> list[int]:
    """The sizes of sets that the ranked heads can fill, in order."""
    if not isinstance(ks, list | tuple) or not ks:
        raise BadInput(f"head_ablation.ks is {ks!r}: give a list of set sizes, such as [1, 2, 4]")
    sizes = sorted({whole_number("head_ablation.ks", k, 1) for k in ks})
    if sizes[0] > n_ranked:
        raise NotApplicable(f"head_ablation: the ranking measured {n_ranked} heads, fewer than any of ks")
    return [k for k in sizes if k <= n_ranked]


class _Sets:
    """The tested sets and their controls, in one list and back."""

    def __init__(self, order: list[Head], sizes: list[int], lm: LanguageModel, n_draws: int, seed: int) -> None:
        self.sizes = sizes
        self.controls: list[ControlSets] = [
            matched_head_sets(order[:k], lm.n_layers, lm.n_heads, n_draws=n_draws, seed=seed) for k in sizes
        ]
        self.tested = [tuple(order[:k]) for k in sizes]
        self.all = [*self.tested, *(each for control in self.controls for each in control.sets)]

    def arrays(self, effects: Tensor, ranked_on: Tensor) -> dict[str, Tensor]:
        """Effects [tested item, set] laid out by item, k and draw."""
        drawn = [len(control.sets) for control in self.controls]
        n_items, n_sizes = len(ranked_on), len(self.sizes)
        set_effects = torch.full((n_items, n_sizes), torch.nan)
        control_effects = torch.full((n_items, n_sizes, max([*drawn, 1])), torch.nan)
        set_effects[~ranked_on] = effects[:, :n_sizes].float()
        start = n_sizes
        for index, count in enumerate(drawn):
            control_effects[~ranked_on, index, :count] = effects[:, start : start + count].float()
            start += count
        return {
            "k": torch.tensor(self.sizes),
            "set_effects": set_effects,
            "control_effects": control_effects,
            "n_draws": torch.tensor(drawn),
            "n_distinct": torch.tensor([min(control.n_distinct, MOST_DISTINCT) for control in self.controls]),
        }
