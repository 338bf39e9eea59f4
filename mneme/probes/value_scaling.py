"""What a model says when the output of one head is scaled at the last position: the context's answer, or its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.alphas import alpha_axis
from mneme.arguments import one_of, whole_number
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import Site, capture
from mneme.conflict_heads import KINDS, curves_of_heads, halves, head_importance, ranked_heads
from mneme.controls import Head
from mneme.curve import Curve, among_all
from mneme.errors import BadInput, NotApplicable
from mneme.fact_conflicts import (
    OUTCOMES,
    as_conflict,
    known_items,
    memory_readout,
    outcome_readout,
    question_alone,
    share_of,
)
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout


@probe(
    level="curve",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    curves={
        "context_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "memory_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "other_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "logit_difference": ("alpha", "logits", None, None),
        "closed_book_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "control_context_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "control_memory_rate": ("alpha", "fraction of prompts", 0.0, 1.0),
        "control_logit_difference": ("alpha", "logits", None, None),
        "layer": ("rank", "layer", 0.0, None),
        "head": ("rank", "head", 0.0, None),
    },
    source="Yu et al. 2023; METHODS 10a",
)
def value_scaling(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    head: str | Sequence[int] = "context",
    alphas: Sequence[float] = (-5, -4, -3, -2, -1, 0, 0.5, 1, 1.5, 2, 3, 4, 5),
    held_out: str | None = None,
    is_norm_matched: bool = False,
) -> dict[str, Curve]:
    """Outcomes when Z of one head is multiplied by alpha at the last position, and of other heads of its layer.

    Unit:   `context_rate`, `memory_rate`, `other_rate`: what the model says, of all tokens it could say (a tie is
            `other`), the three sum to 1; `logit_difference`: logit[context] - logit[memory]; `closed_book_rate`: the
            memorised answer to the question alone under the same scaling; `control_..`: the mean over the other heads
            of that layer, scaled one at a time; `layer`, `head`: which head it was
    x:      alpha, 1 among them whatever `alphas` says: the unchanged model, bit for bit
    head:   `context`, the head that writes most for the context's answer (direct logit attribution), or `memory`, the
            one that writes most against it, chosen on one half of the prompts and tested on the other; or
            [layer, head], tested on all
    held_out: a condition; then the head is chosen where it is lowest and tested on the other prompts
    is_norm_matched: whether a control head moves as far as the tested one: its Z changes by (alpha - 1) times the
            tested head's norm, along itself, where it has any

    Values are NaN for prompts that chose the head, and for those whose memorised answer the model does not give closed
    book.
    Raises: NotApplicable without answers, where the model knows too few facts, or where no head writes for the answer
    that `head` names.
    Source: METHODS 10a. Departs from it: a promptset on which the model mostly says something else is not refused;
    `other_rate` at alpha 1 shows it
    """
    conflict = as_conflict(prompts, "value_scaling")
    x = alpha_axis("value_scaling", alphas)
    chosen, tested_on = _chosen(lm, conflict, head, held_out, probe_seed)
    tested = conflict.select(tested_on)
    layer, index = chosen
    sets = [[chosen], *([(layer, other)] for other in range(lm.n_heads) if other != index)]
    found: dict[str, list[Tensor]] = {}
    for done, alpha in enumerate(x.tolist()):
        factors = _factors(lm, tested.clean, chosen, alpha, is_norm_matched=is_norm_matched)
        for name, values in _at(lm, tested, sets, factors).items():
            found.setdefault(name, []).append(values)
        progress(done + 1, len(x))
    curves = {name: Curve(x, among_all(torch.stack(values, dim=1), tested_on)) for name, values in found.items()}
    return curves | curves_of_heads([chosen], tested_on)


def _chosen(
    lm: LanguageModel, conflict: Promptset, head: str | Sequence[int], held_out: str | None, seed: int
) -> tuple[Head, Tensor]:
    """The head that is scaled, and the prompts on which that is tested: bool [item]."""
    if not isinstance(head, str):
        named, known = _named(lm, head), known_items(lm, conflict)
        if not bool(known.any()):
            raise NotApplicable("value_scaling: the model gives none of the memorised answers closed book")
        return named, known
    kind = one_of("value_scaling.head", head, KINDS)
    groups = halves(lm, conflict, seed, held_out, "value_scaling")
    written = head_importance(lm, conflict.select(groups.chosen_on), "attribution")
    layer, index = ranked_heads(written, kind)[0]
    strongest = float(written[:, layer, index].mean()) * (1 if kind == "context" else -1)
    if strongest <= 0:
        raise NotApplicable(f"value_scaling: no head of {lm.name} writes for the answer of the {kind}")
    return (layer, index), groups.tested_on


def _named(lm: LanguageModel, head: Sequence[int]) -> Head:
    if not isinstance(head, list | tuple) or len(head) != 2:
        raise BadInput(f"value_scaling.head is {head!r}: choose one of {', '.join(KINDS)}, or [layer, head]")
    layer = whole_number("value_scaling.head[0]", head[0], 0, lm.n_layers - 1)
    return layer, whole_number("value_scaling.head[1]", head[1], 0, lm.n_heads - 1)


def _factors(lm: LanguageModel, batch: Batch, chosen: Head, alpha: float, *, is_norm_matched: bool) -> Tensor:
    """What each head's Z is multiplied by: [item layer head]."""
    factors = torch.full((len(batch), lm.n_layers, lm.n_heads), alpha, dtype=torch.float64)
    if not is_norm_matched:
        return factors
    norms = _norms(lm, batch, chosen[0])
    ratio = torch.where(norms > 0, norms[:, [chosen[1]]] / norms, 0.0)
    factors[:, chosen[0]] = 1 + (alpha - 1) * ratio
    factors[:, chosen[0], chosen[1]] = alpha
    return factors


def _norms(lm: LanguageModel, batch: Batch, layer: int) -> Tensor:
    """The norm of each head's Z of one layer at the last position: [item head] float64."""

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        z = capture(lm, part, [Site("z", layers=(layer,))])["z"][:, 0].double().cpu()
        norms: Tensor = torch.linalg.vector_norm(z[torch.arange(len(part)), :, part.lengths - 1], dim=-1)
        return norms

    return in_batches(lm, len(batch), batch.ids.shape[1], run)


def _at(lm: LanguageModel, tested: Promptset, sets: list[list[Head]], factors: Tensor) -> dict[str, Tensor]:
    """Every measure of the tested prompts at one alpha, the first set the tested head, the others controls: [item]."""
    codes, logits = (
        _scaled(lm, tested.clean, readout, sets, factors)
        for readout in (outcome_readout(tested), primary_readout(tested))
    )
    rates = {kind: share_of(kind, codes) for kind in OUTCOMES}
    alone = question_alone(tested)
    closed_book = torch.full((len(tested),), torch.nan)
    if alone is not None:
        closed_book = _scaled(lm, alone, memory_readout(tested), sets[:1], factors)[:, 0]
    return {
        **{f"{kind}_rate": rate[:, 0] for kind, rate in rates.items()},
        "logit_difference": logits[:, 0],
        "closed_book_rate": closed_book,
        **{f"control_{kind}_rate": rates[kind][:, 1:].double().mean(dim=1) for kind in KINDS},
        "control_logit_difference": logits[:, 1:].double().mean(dim=1),
    }


def _scaled(lm: LanguageModel, batch: Batch, readout: Readout, sets: list[list[Head]], factors: Tensor) -> Tensor:
    """The readout with each set scaled at the last position: [item set]."""
    last = batch.lengths - 1
    return ablate_head_sets(lm, batch, readout, sets, "scale", factor=factors, positions=last).cpu()
