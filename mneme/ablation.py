"""Ablates attention heads: zero, mean, resample, uniform attention or scale; exact, per prompt and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import items_per_forward
from mneme.capturing import capture
from mneme.errors import BadInput
from mneme.head_changes import HeadChanges, HeadSet, Replacement, run_changes
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.patching import donor_heads, position_of
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout
from mneme.registry import near_names

AblationKind = Literal["zero", "mean", "resample", "uniform", "scale"]


@torch.no_grad()
def ablate_heads(  # noqa: PLR0913  the stable signature, plus what long sweeps need
    lm: LanguageModel,
    ids: Tensor | Batch,
    readout: Readout,
    kind: AblationKind = "zero",
    reference: Tensor | Batch | None = None,
    *,
    factor: float | Tensor | None = None,
    positions: Tensor | str | int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each prompt with one head ablated, for every head: [item layer head].

    kind: `zero` Z := 0; `mean` Z := mean over the reference prompts, per position; `resample` Z := Z of the reference
    prompt of the same place (without a reference: of the next prompt); `uniform` attention := uniform over the keys
    that the head may see; `scale` Z := factor * Z, with one factor, or [item layer head], that of each prompt and
    head. The output projection's bias stays. Unit: the readout's.
    positions: None = all; a position label, an index, or [item] int64, the one position that is ablated in each prompt.
    Source: METHODS 3. Raises: BadInput for an unknown kind, a missing or unfitting reference, a position that does not
    exist, a bad readout; NotApplicable for models outside the attention interface.
    """
    heads = [[(layer, head)] for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    found = ablate_head_sets(
        lm, ids, readout, heads, kind, reference, factor=factor, positions=positions, progress=progress
    )
    return found.reshape(-1, lm.n_layers, lm.n_heads)


@torch.no_grad()
def ablate_head_sets(  # noqa: PLR0913  the stable signature, plus what long sweeps need
    lm: LanguageModel,
    ids: Tensor | Batch,
    readout: Readout,
    sets: Sequence[HeadSet],
    kind: AblationKind = "zero",
    reference: Tensor | Batch | None = None,
    *,
    factor: float | Tensor | None = None,
    positions: Tensor | str | int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each prompt with all heads of a set ablated together, for every set of (layer, head): [item set].

    An empty set leaves the model as it is. Kinds, positions, source and errors as in `ablate_heads`.
    """
    batch = lm.batch(ids)
    prepare = _preparation(lm, batch, kind, reference, factor)
    places = None if positions is None else _places(batch, positions).expand(len(sets), -1)
    return run_changes(lm, batch, as_readout(readout), HeadChanges(sets, prepare, places), progress)


def _places(batch: Batch, positions: Tensor | str | int) -> Tensor:
    """The one position that is ablated in each prompt: [item]."""
    if not isinstance(positions, Tensor):
        return position_of(batch, positions)
    places = positions.to(batch.ids.device)
    if places.shape != batch.lengths.shape or bool(((places < 0) | (places >= batch.lengths)).any()):
        raise BadInput("ablated positions must be one position of each prompt, [item]")
    return places


def _preparation(
    lm: LanguageModel, batch: Batch, kind: AblationKind, reference: Tensor | Batch | None, factor: float | Tensor | None
) -> Callable[[Tensor], Replacement]:
    """What `HeadChanges` asks: for some items, by what their heads are replaced."""
    if kind not in get_args(AblationKind):
        raise BadInput(f"unknown ablation '{kind}'" + near_names(kind, list(get_args(AblationKind))))
    if (factor is not None) != (kind == "scale"):
        raise BadInput("ablation 'scale' needs a factor, and no other kind takes one")
    if kind == "resample":
        return _from_donors(lm, batch, reference)
    if factor is not None:
        return _from_factors(lm, batch, torch.as_tensor(factor, dtype=torch.float64))
    if kind == "mean":
        means = _from_means(lm, batch, reference)
        return lambda _: means
    return lambda _: _zero if kind == "zero" else _uniform


def _zero(_: AttentionCall, z: Tensor, __: Tensor) -> Tensor:
    return torch.zeros_like(z)


def _from_factors(lm: LanguageModel, batch: Batch, factor: Tensor) -> Callable[[Tensor], Replacement]:
    wanted = (len(batch), lm.n_layers, lm.n_heads)
    if factor.ndim and factor.shape != wanted:
        raise BadInput(f"factors must be one number or [item layer head] {wanted}, not {tuple(factor.shape)}")
    factors = factor.to(batch.ids.device).expand(wanted)

    def prepare(items: Tensor) -> Replacement:
        return lambda call, z, local: z * factors[items[local], call.layer][:, None, :, None].to(z)

    return prepare


def _uniform(call: AttentionCall, _: Tensor, __: Tensor) -> Tensor:
    """Z when every visible key gets the same share, a learned sink none."""
    inputs = call.inputs(torch.full((len(call.query),), call.key.shape[2]))
    blank = torch.zeros_like(inputs.query), torch.zeros_like(inputs.key)
    return replace(inputs, query=blank[0], key=blank[1], softcap=None, sinks=None).attend(call.value)


def _from_means(lm: LanguageModel, batch: Batch, reference: Tensor | Batch | None) -> Replacement:
    if reference is None:
        raise BadInput(
            "mean ablation needs reference prompts: pass reference=, aligned with the ids position by position"
        )
    given = lm.batch(reference)
    if int(given.lengths.max()) < int(batch.lengths.max()):
        raise BadInput(
            "mean ablation: no reference prompt is as long as the longest prompt, so some positions have no mean"
        )
    means = mean_z(lm, given).transpose(1, 2)
    return lambda call, z, _: means[call.layer][call.first_query : call.key.shape[2]].expand_as(z)


@torch.no_grad()
def mean_z(lm: LanguageModel, reference: Batch) -> Tensor:
    """Z of every head, mean over the reference prompts that have a position: [layer head position width]."""
    total, count = torch.zeros(()), reference.padding.sum(dim=0)
    size = items_per_forward(lm, reference.ids.shape[1])
    for start in range(0, len(reference), size):
        part = reference.select(slice(start, start + size))
        z = capture(lm, part, ["z"])["z"] * part.padding[:, None, None, :, None]
        total = total + torch.nn.functional.pad(z.sum(dim=0), (0, 0, 0, reference.ids.shape[1] - z.shape[3]))
    return total / count[:, None]


def _from_donors(lm: LanguageModel, batch: Batch, reference: Tensor | Batch | None) -> Callable[[Tensor], Replacement]:
    if reference is None:
        if len(batch) < 2:
            raise BadInput(
                "resample ablation without a reference takes the next prompt's heads: give two prompts or more"
            )
        donors = batch.select(torch.arange(1, len(batch) + 1) % len(batch))
    else:
        donors = lm.batch(reference)
    if len(donors) != len(batch) or bool((donors.lengths < batch.lengths).any()):
        raise BadInput("resample ablation needs one reference prompt per prompt, at least as long as it")
    return donor_heads(lm, donors)
