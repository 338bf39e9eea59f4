"""Colored objects before and after the repair: how much is right, and where the heads that answer look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from mneme.accuracy_readouts import answer_accuracy_readout, top1_accuracy_readout
from mneme.arguments import number_between, one_of, whole_number
from mneme.color_repair import TARGETS, bounds_of_accuracy, color_labels, forced_readout, heads_to_force, require_room
from mneme.controls import Head, HeadSet, set_sizes
from mneme.curve import Curve, among_all
from mneme.errors import NotApplicable
from mneme.forced_attention import attention_when_forced, even_rows
from mneme.head_harm import HeadSets
from mneme.head_order import Ranking, split_items
from mneme.model import LanguageModel
from mneme.path_stages import heads_in, stage_effects, top_heads
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

WHO = "repair_curve"


@probe(
    level="curve",
    unit="fraction of right answers",
    low=0.0,
    high=1.0,
    ranks_with="rank_by",
    curves={
        "accuracy": ("n_forced", "fraction of right answers", 0.0, 1.0),
        "accuracy_of_vocabulary": ("n_forced", "fraction of right answers", 0.0, 1.0),
        "random_accuracy": ("n_forced", "fraction of right answers", 0.0, 1.0),
        "to_wrong": ("n_forced", "fraction of attention", 0.0, 1.0),
        "to_correct": ("n_forced", "fraction of attention", 0.0, 1.0),
        "random_to_wrong": ("n_forced", "fraction of attention", 0.0, 1.0),
        "random_to_correct": ("n_forced", "fraction of attention", 0.0, 1.0),
    },
    source="Merullo et al. 2023; METHODS 5c",
)
def repair_curve(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    target: str = "wrong",
    rank_by: str = "path_patching",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    ks: Sequence[int] = (1, 2, 4),
    share: float = 0.02,
    n_draws: int = 20,
    least_accuracy: float = 1 / 3,
    most_accuracy: float = 0.9,
) -> dict[str, Curve]:
    """What `colored_objects_repair` changes, as it is before (0 heads forced) and after (the top 1, 2, ... forced).

    Shape:  curves [item point]; those of attention hold NaN for the prompts that chose the heads that answer
    Unit:   `accuracy`: the correct color above the prompt's others; `accuracy_of_vocabulary`: above all tokens.
            `to_wrong`, `to_correct`: from the last token to the wrong colors together, and to the correct one, mean
            over the heads that answer. `random_...`: mean over `n_draws` random sets of heads of the same layers
    Range:  0 .. 1; a tie is no credit
    share:  of all heads, how many count as those that answer: the ones whose direct path to the logits raises the
            correct color most, on one half of the prompts; where they look is measured on the other half
    target, rank_by, rank_on, ks, n_draws, least_accuracy, most_accuracy: as in `colored_objects_repair`

    Raises: NotApplicable as `colored_objects_repair`, and where no head helps the answer; BadInput for a bad parameter
    Source: METHODS 5c (accuracy before and after, attention of the movers to wrong and right colors)
    """
    one_of(f"{WHO}.target", target, TARGETS)
    asked = sorted(set_sizes(WHO, ks))
    n_draws = whole_number(f"{WHO}.n_draws", n_draws, 1)
    number_between(f"{WHO}.share", share, 0.0, 1.0)
    bounds = bounds_of_accuracy(least_accuracy, most_accuracy, WHO)
    labels = color_labels(prompts, target, WHO)
    clean = forced_readout(lm, prompts, labels, answer_accuracy_readout(prompts, WHO), [()])
    require_room(lm, clean[:, 0], bounds, WHO)
    order, sizes, is_tested = heads_to_force(ranking, prompts, asked, probe_seed, WHO)
    drawn = HeadSets(order, sizes, lm, n_draws, probe_seed)
    sets = _Sets(((), *drawn.all[: len(sizes)]), tuple(tuple(each.sets) for each in drawn.controls))
    tested = prompts.select(is_tested)
    forced = forced_readout(lm, tested, labels, answer_accuracy_readout(tested, WHO), sets.all[1:])
    right = among_all(torch.cat([clean[is_tested], forced], dim=1), is_tested)
    first = among_all(forced_readout(lm, tested, labels, top1_accuracy_readout(tested, WHO), sets.top), is_tested)
    progress(1, 2)
    chosen_on = split_items(prompts, probe_seed)
    looked = _looked(lm, prompts.select(~chosen_on), labels, sets, _answering(lm, prompts.select(chosen_on), share))
    to_wrong, to_correct = (among_all(each, ~chosen_on) for each in looked)
    progress(2, 2)
    found = {"accuracy_of_vocabulary": Curve(_axis([0, *sizes]), first)}
    for name, values in (("accuracy", right), ("to_wrong", to_wrong), ("to_correct", to_correct)):
        found |= sets.curves(name, values, sizes)
    return found


@dataclass(frozen=True)
class _Sets:
    """No head and the top k, and for each k its random sets."""

    top: tuple[HeadSet, ...]
    random: tuple[tuple[HeadSet, ...], ...]

    @property
    def all(self) -> list[HeadSet]:
        return [*self.top, *(each for drawn in self.random for each in drawn)]

    def curves(self, name: str, values: Tensor, sizes: Sequence[int]) -> dict[str, Curve]:
        """The curve of the top heads and that of random ones, from values [item set] of `all`."""
        ends = accumulate([len(self.top), *(len(drawn) for drawn in self.random[:-1])])
        top, *random = values.tensor_split(list(ends), dim=1)
        means = torch.stack([each.mean(dim=1) for each in random], dim=1)  # NaN where there are no other heads
        return {name: Curve(_axis([0, *sizes]), top), f"random_{name}": Curve(_axis(sizes), means)}


def _answering(lm: LanguageModel, prompts: Promptset, share: float) -> list[Head]:
    """The heads whose direct path to the logits raises the correct color most."""
    if prompts.corrupt is None:
        raise NotApplicable(f"{WHO} needs clean and corrupt prompts: the heads that answer are found by path patching")
    corrupt = replace(prompts.corrupt, labels=prompts.clean.labels)
    effects = stage_effects(lm, prompts.clean, corrupt, primary_readout(prompts), "logits", share)
    helps = effects.double().mean(dim=0).clamp_min(0.0)
    heads = heads_in(top_heads(helps[None], share))
    if not heads:
        raise NotApplicable(f"{WHO}: no head of {lm.name} helps the answer, so none can be watched")
    return heads


def _looked(
    lm: LanguageModel, prompts: Promptset, labels: Sequence[str], sets: _Sets, heads: Sequence[Head]
) -> tuple[Tensor, Tensor]:
    """Attention of some heads to the wrong colors and to the correct one, for every set: two of [item set]."""
    pairs = [("end", name) for name in ("correct_color", *color_labels(prompts, "wrong", WHO))]
    rows = even_rows(prompts.clean, labels)
    seen = []
    for forced in sets.all:
        attention = attention_when_forced(lm, prompts.clean, pairs, forced, rows, "end").double()
        seen.append(torch.stack([attention[:, layer, head] for layer, head in heads]).mean(dim=0))
    found = torch.stack(seen, dim=1)  # [item set pair]
    return found[..., 1:].sum(dim=-1).clamp(max=1.0), found[..., 0]


def _axis(points: Sequence[int]) -> Tensor:
    return torch.tensor(list(points), dtype=torch.float64)
