"""How much of the answer each head carries from the clean prompt, to first order, or exactly."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.arguments import one_of
from mneme.attribution_patching import AttributionMethod, HeadPart
from mneme.attribution_patching import attribution_patching as attributed
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.patching import patch
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="logits",
    low=None,
    high=None,
    source="Nanda 2023; Kramar et al. 2024; METHODS 6a",
)
def attribution_patching(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    method: str = "atp",
    part: str = "z",
) -> Tensor:
    """By how much the logit difference falls when one part of a head comes from the corrupt prompt.

    Shape:  [item layer head]
    Unit:   logits, larger = the head carries more: m(clean) - m(clean, patched with corrupt), as `head_patching` in
            direction `noise` measures it
    Range:  unbounded; 0 = no effect, negative = favours the wrong answer; at least 0 with dropped gradients
    method: `atp` to first order; `qk_fix` with the true change of attention, for queries and keys; `grad_drop` the
            mean size with one layer's gradient dropped at a time; `atp_star` both; `exact` runs every head
    part:   `z`, the head's output before the output projection, or its queries `q`, keys `k` or values `v`
    Raises: NotApplicable without pairs or answers, and for dropped gradients in a model of one layer; BadInput for
            `qk_fix` of other parts than queries and keys, and for pairs without a difference
    Source: METHODS 6a; departs from it in that scores are per head and not per position, and MLPs have none
    """
    place = "attribution_patching"
    methods: tuple[str, ...] = (*get_args(AttributionMethod), "exact")
    one_of(f"{place}.method", method, methods)
    one_of(f"{place}.part", part, get_args(HeadPart))
    if prompts.corrupt is None:
        raise NotApplicable(f"{place} needs clean and corrupt prompts, and this promptset has no corrupt ones")
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable(f"{place} needs prompts with correct and wrong answers, and this promptset has none")
    readout, pair = primary_readout(prompts), (prompts.clean, prompts.corrupt)
    if method == "exact":
        clean = ablate_head_sets(lm, prompts.clean, readout, [()])
        return (clean[:, :, None] - patch(lm, *pair, readout, part, progress=progress)).cpu()  # type: ignore[arg-type]
    found = attributed(lm, *pair, readout, part, method, progress=progress)  # type: ignore[arg-type]
    return (found if method in ("grad_drop", "atp_star") else torch.neg(found)).cpu()
