"""Which heads speak for the context's answer and which for the memorised one, and on which prompts that is tested."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets, ablate_heads
from mneme.arguments import one_of
from mneme.attribution import direct_logit_attribution
from mneme.attribution_patching import attribution_patching
from mneme.batching import in_batches
from mneme.controls import Head
from mneme.curve import Curve, among_all
from mneme.errors import BadInput, NotApplicable
from mneme.fact_conflicts import known_items
from mneme.head_order import order_of_heads, split_items
from mneme.model import LanguageModel
from mneme.paths import path_patch
from mneme.primary_readout import primary_readout
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

KINDS = ("context", "memory")
RANKINGS = ("path_patching", "attribution", "ablation", "gradient")


@dataclass(frozen=True)
class Halves:
    """Prompts on which heads are chosen and prompts on which they are tested, all known closed book: bool [item]."""

    chosen_on: Tensor
    tested_on: Tensor


def halves(lm: LanguageModel, conflict: Promptset, seed: int, held_out: str | None, who: str) -> Halves:
    """Two groups of the prompts whose fact the model knows: a random half each, clusters kept whole.

    held_out: a condition of the prompts; then heads are chosen where it has its lowest value and tested on all others,
    such as other wordings or another relation.
    Raises: BadInput for an unknown condition; NotApplicable where it is the same everywhere, or a group is empty.
    """
    chosen_on = split_items(conflict, seed) if held_out is None else _lowest(conflict, held_out, who)
    known = known_items(lm, conflict)
    found = Halves(chosen_on & known, ~chosen_on & known)
    if not bool(found.chosen_on.any()) or not bool(found.tested_on.any()):
        raise NotApplicable(
            f"{who}: of the facts that the prompts contradict, the model knows {int(known.sum())} of {len(conflict)} "
            "closed book, too few to choose heads on some prompts and test them on others"
        )
    return found


def head_importance(lm: LanguageModel, conflict: Promptset, rank_by: str, progress: Progress = silent) -> Tensor:
    """How much each head speaks for the context's answer against the memorised one: [item layer head] logits.

    rank_by: `path_patching`, the fall of logit[context] - logit[memory] when the head's direct path to the logits
    carries what it wrote on the corrupt prompt; `attribution`, what it writes at the last position; `ablation`, the
    fall when its output is zeroed everywhere; `gradient`, to first order the fall when its output everywhere is that of
    the corrupt prompt (attribution patching). Positive = a context head, negative = a memory head.
    Source: METHODS 10b (path patching, and the rankings it is compared with), 6a; Jin et al. 2024
    """
    ranking = one_of("rank_by", rank_by, RANKINGS)
    readout = primary_readout(conflict)
    if ranking == "attribution":
        return _written(lm, conflict, progress)
    clean = ablate_head_sets(lm, conflict.clean, readout, [()]).cpu()[:, :, None]
    if ranking == "ablation":
        return clean - ablate_heads(lm, conflict.clean, readout, "zero", progress=progress).cpu()
    if conflict.corrupt is None:
        name = ranking.replace("_", " ")
        raise NotApplicable(
            f"ranking by {name} needs clean and corrupt prompts, and this promptset has no corrupt ones"
        )
    if ranking == "gradient":
        return -attribution_patching(lm, conflict.clean, conflict.corrupt, readout, progress=progress).cpu()
    heads = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    patched = path_patch(lm, conflict.clean, conflict.corrupt, readout, heads, progress=progress).cpu()
    return clean - patched.reshape(-1, lm.n_layers, lm.n_heads)


def ranked_heads(importance: Tensor, kind: str) -> list[Head]:
    """Heads [item layer head] by what they do for one answer: context heads most positive first, memory heads last."""
    return order_of_heads(importance if kind == "context" else -importance)


def curves_of_heads(heads: list[Head], tested_on: Tensor) -> dict[str, Curve]:
    """Which heads were changed, as curves over their rank: `layer` and `head`, the same for every tested prompt."""
    x = torch.arange(1, len(heads) + 1, dtype=torch.float64)
    n_tested = int(tested_on.sum())
    named = torch.tensor(heads, dtype=torch.float64).T[:, None].expand(-1, n_tested, -1)
    return {name: Curve(x, among_all(each, tested_on)) for name, each in zip(("layer", "head"), named, strict=True)}


def _written(lm: LanguageModel, conflict: Promptset, progress: Progress) -> Tensor:
    """Direct logit attribution of each head: [item layer head]."""
    context, memory = conflict.correct_ids, conflict.wrong_ids
    assert context is not None  # noqa: S101  `as_conflict` checks
    assert memory is not None  # noqa: S101  `as_conflict` checks

    def run(items: slice) -> Tensor:
        return direct_logit_attribution(lm, conflict.clean.select(items), context[items], memory[items])["heads"].cpu()

    return in_batches(lm, len(conflict), conflict.clean.ids.shape[1], run, progress)


def _lowest(prompts: Promptset, condition: str, who: str) -> Tensor:
    if condition not in prompts.conditions:
        known = ", ".join(prompts.conditions) or "none"
        raise BadInput(f"{who}.held_out is {condition!r}: choose a condition of the prompts, which have {known}")
    values = prompts.conditions[condition]
    given = values[~values.isnan()]
    lowest: Tensor = values == given.min()
    if not bool((given != given.min()).any()):
        raise NotApplicable(f"{who}: all prompts have one {condition}, so there is no other one to test heads on")
    return lowest
