"""Patches attention heads: runs the base prompts with one head's output taken from donor prompts, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput
from mneme.head_changes import HeadChanges, HeadSet, Replacement, run_changes
from mneme.interception import AttentionCall, handled
from mneme.layer_changes import run_layer_changes
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout
from mneme.registry import near_names

PatchSite = Literal["residual", "mlp_out", "z", "q", "k", "v", "pattern"]
Positions = Literal["each"] | Sequence[str] | None


@torch.no_grad()
def patch_heads(
    lm: LanguageModel,
    base_ids: Tensor | Batch,
    donor_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    positions: Positions = None,
    *,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each base prompt with Z of one head taken from its donor prompt, for every head.

    Also known as activation patching, causal tracing or interchange intervention of head outputs. Base = corrupt and
    donor = clean denoises; base = clean and donor = corrupt noises.

    positions: None patches all positions: [item layer head]; "each" one at a time: [item layer head position]; labels
    one labelled position at a time, each prompt's own: [item layer head label]. NaN at padding. Unit: the readout's.
    Exact: runs only the layers and positions that a patch can alter; a patch that changes nothing gives the base's own
    readout, digit for digit. Source: METHODS 3; Vig et al. 2020; Wang et al. 2022; Zhang & Nanda 2023.
    Raises: BadInput when the pairs do not align, a label is unknown or the readout is bad; NotApplicable for models
    outside the attention interface.
    """
    base, donor = lm.batch(base_ids), lm.batch(donor_ids)
    check_aligned(base, donor)
    places = _places(base, positions)
    heads: list[HeadSet] = [[(layer, head)] for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    n_places = 1 if places is None else len(places)
    changes = HeadChanges(
        sets=[each for each in heads for _ in range(n_places)],
        prepare=donor_heads(lm, donor),
        places=None if places is None else places.repeat(len(heads), 1),
    )
    found = run_changes(lm, base, as_readout(readout), changes, progress)
    shaped = found.reshape(len(base), lm.n_layers, lm.n_heads, n_places)
    if places is None:
        return shaped[..., 0]
    is_padding = base.lengths[:, None] <= places.T
    return shaped.masked_fill(is_padding[:, None, None, :], torch.nan)


@torch.no_grad()
def patch_head_sets(
    lm: LanguageModel,
    base_ids: Tensor | Batch,
    donor_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    sets: Sequence[HeadSet],
    *,
    progress: Progress = silent,
) -> Tensor:
    """The readout with all heads of a set patched together, for every set of (layer, head): [item set].

    Source, exactness and errors as in `patch_heads`.
    """
    base, donor = lm.batch(base_ids), lm.batch(donor_ids)
    check_aligned(base, donor)
    return run_changes(lm, base, as_readout(readout), HeadChanges(sets, donor_heads(lm, donor)), progress)


@torch.no_grad()
def patch(  # noqa: PLR0913  the stable signature, plus what long sweeps need
    lm: LanguageModel,
    base_ids: Tensor | Batch,
    donor_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    site: PatchSite,
    positions: Positions = None,
    *,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each base prompt with one site taken from its donor prompt, for every layer (and head).

    site "residual" (what enters a layer) or "mlp_out": [item layer], with positions as in `patch_heads` on a further
    axis. "z": `patch_heads`. "q", "k", "v", or "pattern" (the attention probabilities, values kept): [item layer head],
    at all positions; k and v are changed for one query head, not for its group. NaN at padding. Unit: the readout's.
    Source: METHODS 3; Meng et al. 2022. Exactness and errors as in `patch_heads`.
    """
    if site == "z":
        return patch_heads(lm, base_ids, donor_ids, readout, positions, progress=progress)
    base, donor = lm.batch(base_ids), lm.batch(donor_ids)
    check_aligned(base, donor)
    if site in ("q", "k", "v", "pattern"):
        if positions is not None:
            raise BadInput(f"site {site} is patched at all positions: leave positions out")
        heads: list[HeadSet] = [[(layer, head)] for layer in range(lm.n_layers) for head in range(lm.n_heads)]
        changes = HeadChanges(heads, donor_inputs(lm, donor, site))
        found = run_changes(lm, base, as_readout(readout), changes, progress)
        return found.reshape(len(base), lm.n_layers, lm.n_heads)
    if site not in ("residual", "mlp_out"):
        raise BadInput(f"unknown site '{site}'" + near_names(site, list(get_args(PatchSite))))
    places = _places(base, positions)
    every = torch.full((1, len(base)), -1, device=base.ids.device)
    found = run_layer_changes(lm, base, donor, as_readout(readout), site, every if places is None else places, progress)
    if places is None:
        return found[..., 0]
    return found.masked_fill((base.lengths[:, None] <= places.T)[:, None], torch.nan)


def donor_inputs(lm: LanguageModel, donors: Batch, part: str) -> Callable[[Tensor], Replacement]:
    """What `HeadChanges` asks: Z when queries, keys, values or the pattern come from the donor prompts."""

    def prepare(items: Tensor) -> Replacement:
        calls: dict[int, AttentionCall] = {}

        def note(call: AttentionCall) -> Tensor:
            calls[call.layer] = call
            return call.compute()

        with handled(lm.attention_modules, note):
            lm.backbone.hidden(donors.select(items).ids)

        def replacement(call: AttentionCall, _: Tensor, local: Tensor) -> Tensor:
            other = calls[call.layer]
            query = other.query[local] if part in ("q", "pattern") else call.query
            key = other.key[local] if part in ("k", "pattern") else call.key
            value = other.value[local] if part == "v" else call.value
            return replace(call, query=query, key=key, value=value).compute()

        return replacement

    return prepare


def donor_heads(lm: LanguageModel, donors: Batch) -> Callable[[Tensor], Replacement]:
    """What `HeadChanges` asks: Z of the donor prompts, captured for one group of prompts at a time."""

    def prepare(items: Tensor) -> Replacement:
        z = capture(lm, donors.select(items), ["z"])["z"].transpose(2, 3)
        return lambda call, _, local: z[local, call.layer, call.first_query : call.key.shape[2]]

    return prepare


def check_aligned(base: Batch, donor: Batch) -> None:
    """Refuse pairs that do not align token by token, with BadInput."""
    if base.ids.shape != donor.ids.shape or not torch.equal(base.lengths, donor.lengths):
        raise BadInput(
            f"base and donor prompts must align token by token, but have {tuple(base.ids.shape)} and "
            f"{tuple(donor.ids.shape)} tokens or different lengths: pad or rewrite the pairs"
        )


def position_of(batch: Batch, position: str | int) -> Tensor:
    """The position that a label or an index names in each prompt: [item]; BadInput where it does not exist."""
    if isinstance(position, str):
        if position not in batch.labels:
            known = ", ".join(batch.labels) or "none"
            raise BadInput(f"position label '{position}' is unknown: the prompts have {known}")
        return batch.labels[position]
    shortest = int(batch.lengths.min())
    if not 0 <= position < shortest:
        raise BadInput(f"position {position} does not exist: the shortest prompt has positions 0..{shortest - 1}")
    return torch.full_like(batch.lengths, position)


def _places(base: Batch, positions: Positions) -> Tensor | None:
    """The position that each column of the result patches in each prompt: [place item]."""
    if positions is None:
        return None
    if positions == "each":
        return torch.arange(base.ids.shape[1], device=base.ids.device)[:, None].expand(-1, len(base))
    labels = [positions] if isinstance(positions, str) else list(positions)
    if not labels:
        raise BadInput(f"no position label is given: the prompts have {', '.join(base.labels) or 'none'}")
    return torch.stack([position_of(base, label) for label in labels])
