"""What heads are worth: each ablated alone, and the top heads of a ranking together, beside matched random heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets, ablate_heads
from mneme.arguments import one_of, whole_number
from mneme.controls import ControlSets, Head, matched_head_sets, set_sizes
from mneme.errors import NotApplicable
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout

Kind = Literal["mean", "zero", "uniform"]
MOST_DISTINCT = 2**62  # more distinct sets than an int64 counts are all the same to a reader


@dataclass(frozen=True)
class HeadTest:
    """How heads are tested: by whom, what is done to them, sizes of the sets, random sets per size, seed, where.

    kind: `mean` (each head's output replaced by its mean over the promptset, per position), `zero`, or `uniform` (the
    same attention to all keys that the head may see). position: a position label of the prompts, to ablate there only;
    None = all positions.
    Raises: BadInput for an unknown kind, no sizes, or a number below 1.
    """

    who: str
    kind: Kind
    sizes: tuple[int, ...]
    n_draws: int
    seed: int
    position: str | None = None

    @classmethod
    def of(
        cls, who: str, kind: object, ks: object, n_draws: object, seed: int, position: str | None = None
    ) -> HeadTest:
        """A test from parameters as a YAML gives them."""
        sizes = tuple(sorted(set_sizes(who, ks)))
        how = cast(Kind, one_of(f"{who}.kind", kind, get_args(Kind)))
        return cls(who, how, sizes, whole_number(f"{who}.n_draws", n_draws, 1), seed, position)

    def fitting(self, n_ranked: int) -> list[int]:
        """The sizes of sets that the ranked heads can fill; raises NotApplicable where there is none."""
        if self.sizes[0] > n_ranked:
            raise NotApplicable(f"{self.who}: the ranking measured {n_ranked} heads, fewer than any of ks")
        return [k for k in self.sizes if k <= n_ranked]


def harm_of_heads(
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    test: HeadTest,
    readout_of: Callable[[Promptset], Readout],
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """Readout of the clean run minus readout of the ablated run, larger = more harm, in the readout's unit.

    Returns: clean [item]; effects [item layer head]; k [k]; top_heads [rank, 2] as (layer, head); set_effects
    [item k] and control_effects [item k draw], NaN on prompts that ranked the heads and beyond the draws; n_draws,
    n_distinct [k].
    Raises: NotApplicable for fewer than two prompts or clusters to rank and test on, or a probe that measured no head.
    Source: METHODS 3 (delta = m(clean) - m(ablated)), METHODS 4 (split A / split B, per-layer-matched controls)
    """
    order, is_tested = ranking.chosen(prompts, test.seed)
    sizes = test.fitting(len(order))
    reference = prompts.clean if test.kind == "mean" else None
    readout = readout_of(prompts)
    where = test.position
    ablated = ablate_heads(lm, prompts.clean, readout, test.kind, reference, positions=where, progress=progress).cpu()
    clean = ablate_head_sets(lm, prompts.clean, readout, [()]).cpu()
    sets = HeadSets(order, sizes, lm, test.n_draws, test.seed)
    tested = prompts.select(is_tested)
    readout = readout_of(tested)
    changed = ablate_head_sets(
        lm, tested.clean, readout, sets.all, test.kind, reference, positions=where, progress=progress
    ).cpu()
    return {
        "clean": clean[:, 0],
        "effects": clean[:, :, None] - ablated,
        "top_heads": torch.tensor(order[: max(sizes)]),
        **sets.arrays(clean[is_tested] - changed, is_tested),
    }


class HeadSets:
    """The tested sets of heads, by size, with their controls behind them, in one list and back.

    order: heads as (layer, head), the best first; n_draws random sets of the same layers for each size.
    """

    def __init__(self, order: Sequence[Head], sizes: list[int], lm: LanguageModel, n_draws: int, seed: int) -> None:
        self.sizes = sizes
        self.controls: list[ControlSets] = [
            matched_head_sets(order[:k], lm.n_layers, lm.n_heads, n_draws=n_draws, seed=seed) for k in sizes
        ]
        self.all = [*(tuple(order[:k]) for k in sizes), *(each for control in self.controls for each in control.sets)]

    def arrays(self, effects: Tensor, is_tested: Tensor) -> dict[str, Tensor]:
        """Effects [tested item, set] laid out by item, k and draw; NaN on other items and beyond the draws."""
        drawn = [len(control.sets) for control in self.controls]
        n_items, n_sizes = len(is_tested), len(self.sizes)
        set_effects = torch.full((n_items, n_sizes), torch.nan)
        control_effects = torch.full((n_items, n_sizes, max([*drawn, 1])), torch.nan)
        set_effects[is_tested] = effects[:, :n_sizes].float()
        start = n_sizes
        for index, count in enumerate(drawn):
            control_effects[is_tested, index, :count] = effects[:, start : start + count].float()
            start += count
        return {
            "k": torch.tensor(self.sizes),
            "set_effects": set_effects,
            "control_effects": control_effects,
            "n_draws": torch.tensor(drawn),
            "n_distinct": torch.tensor([min(control.n_distinct, MOST_DISTINCT) for control in self.controls]),
        }
