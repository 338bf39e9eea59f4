"""Patches attention heads: runs the base prompts with one head's output taken from donor prompts, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput
from mneme.head_changes import HeadChanges, HeadSet, Replacement, run_changes
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout

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


def _places(base: Batch, positions: Positions) -> Tensor | None:
    """The position that each column of the result patches in each prompt: [place item]."""
    if positions is None:
        return None
    if positions == "each":
        return torch.arange(base.ids.shape[1], device=base.ids.device)[:, None].expand(-1, len(base))
    labels = [positions] if isinstance(positions, str) else list(positions)
    unknown = [label for label in labels if label not in base.labels]
    if unknown or not labels:
        known = ", ".join(base.labels) or "none"
        raise BadInput(f"position label '{unknown[0] if unknown else ''}' is unknown: the prompts have {known}")
    return torch.stack([base.labels[label] for label in labels])
