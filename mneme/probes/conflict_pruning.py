"""What a model says without the heads that speak for the context's answer, or for the memorised one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.arguments import one_of, whole_number
from mneme.conflict_heads import KINDS, curves_of_heads, halves, head_importance, ranked_heads
from mneme.controls import Head, matched_head_sets, set_sizes
from mneme.curve import Curve, among_all
from mneme.fact_conflicts import (
    OUTCOMES,
    as_conflict,
    memory_readout,
    outcome_readout,
    question_alone,
    share_of,
)
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    curves={
        "context_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "memory_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "other_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "closed_book_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "control_context_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "control_memory_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "control_closed_book_rate": ("k", "fraction of prompts", 0.0, 1.0),
        "layer": ("rank", "layer", 0.0, None),
        "head": ("rank", "head", 0.0, None),
    },
    source="Jin et al. 2024; METHODS 10b",
)
def conflict_pruning(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    heads: str = "context",
    rank_by: str = "path_patching",
    ks: Sequence[int] = (1, 2, 4, 8),
    n_draws: int = 20,
    held_out: str | None = None,
) -> dict[str, Curve]:
    """Outcomes when the k heads that matter most to one answer are zeroed at all positions, and k random heads.

    Unit:   `context_rate`, `memory_rate`, `other_rate`: what the model says, of all tokens it could say (a tie is
            `other`), the three sum to 1; `closed_book_rate`: the memorised answer to the question alone without these
            heads; `control_..`: the mean over random sets with as many heads in each layer and none of the tested
            ones; `layer`, `head`: the heads by their rank
    x:      k, 0 among them: the unchanged model
    heads:  `context`: those of the highest `ph3_importance`; `memory`: those of the lowest, whatever its sign. They
            are chosen on one half of the prompts and tested on the other
    rank_by: as in `ph3_importance`
    held_out: a condition; then the heads are chosen where it is lowest and tested on the other prompts

    Values are NaN for prompts that chose the heads, and for those whose memorised answer the model does not give
    closed book; controls also where no other heads are left in the layers.
    Raises: NotApplicable without answers or corrupt prompts, and where the model knows too few facts.
    Source: METHODS 10b; sizes are numbers of heads, not percent, and all of them are shown instead of one chosen k
    """
    conflict = as_conflict(prompts, "conflict_pruning")
    kind = one_of("conflict_pruning.heads", heads, KINDS)
    n_draws = whole_number("conflict_pruning.n_draws", n_draws, 1)
    sizes = sorted({0, *set_sizes("conflict_pruning", ks, lm.n_layers * lm.n_heads)})  # 0: the unchanged model
    groups = halves(lm, conflict, probe_seed, held_out, "conflict_pruning")
    importance = head_importance(lm, conflict.select(groups.chosen_on), rank_by)
    order = ranked_heads(importance, kind)[: max(sizes)]
    tested = conflict.select(groups.tested_on)
    pruned = _Pruned(lm, tested, [_sets(lm, order[:k], n_draws, probe_seed) for k in sizes])
    x = torch.tensor(sizes, dtype=torch.float64)
    curves = {name: Curve(x, among_all(values, groups.tested_on)) for name, values in pruned.rates(progress).items()}
    return curves | curves_of_heads(order, groups.tested_on)


def _sets(lm: LanguageModel, tested: list[Head], n_draws: int, seed: int) -> list[list[Head]]:
    """The tested heads, then their controls; no heads are their own control."""
    if not tested:
        return [[], []]
    drawn = matched_head_sets(tested, lm.n_layers, lm.n_heads, n_draws=n_draws, seed=seed)
    return [tested, *(list(each) for each in drawn.sets)]


class _Pruned:
    """Runs of the tested prompts, one for every set of heads."""

    def __init__(self, lm: LanguageModel, tested: Promptset, sets: list[list[list[Head]]]) -> None:
        self.lm = lm
        self.tested = tested
        self.sizes = [len(each) for each in sets]
        self.all = [heads for each in sets for heads in each]

    def rates(self, progress: Progress) -> dict[str, Tensor]:
        """Every measure, [item k]."""
        readout = outcome_readout(self.tested)
        codes = ablate_head_sets(self.lm, self.tested.clean, readout, self.all, progress=progress).cpu()
        rates = {f"{kind}_rate": share_of(kind, codes) for kind in OUTCOMES}
        alone = question_alone(self.tested)
        rates["closed_book_rate"] = torch.full_like(codes, torch.nan)
        if alone is not None:
            rates["closed_book_rate"] = ablate_head_sets(self.lm, alone, memory_readout(self.tested), self.all).cpu()
        found = {name: self._laid_out(values) for name, values in rates.items()}
        controls = {f"control_{name}": found[name][1] for name in found if name != "other_rate"}
        return {name: values[0] for name, values in found.items()} | controls

    def _laid_out(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values [item set] as those of the tested sets and the mean of their controls: [item k] each."""
        parts = torch.split(values, self.sizes, dim=1)
        controls = [part[:, 1:].mean(dim=1) for part in parts]
        return torch.stack([part[:, 0] for part in parts], dim=1), torch.stack(controls, dim=1)
