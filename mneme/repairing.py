"""Self-repair: how much of what a head's removal takes from the answer the layers after it give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mneme.attribution import frozen_direction
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture, head_weights, require_structure
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import answers_of
from mneme.restart import Baseline, Restart, record_baseline, restart
from mneme.structure import LayerParts
from mneme.unembedding import widened


@dataclass(frozen=True)
class Repair:
    """What becomes of the logit difference when the output of one head is taken from another prompt, logits.

    Shape: each [item layer head]. direct: what the head itself loses, read with the clean run's final norm frozen.
    free: what is given back, the difference of the changed run minus the clean one plus `direct`. frozen: the same with
    the changed run's last residual read with the clean run's scale; free - frozen is the share of the norm.
    """

    direct: Tensor
    free: Tensor
    frozen: Tensor


@torch.no_grad()
def self_repair(
    lm: LanguageModel,
    clean: Batch,
    donors: Batch,
    correct_ids: Tensor,
    wrong_ids: Tensor,
    progress: Progress = silent,
) -> Repair:
    """The repair of every head whose output Z is taken, at all positions, from the donor prompt of the same place.

    Shape: clean and donors aligned token by token; correct_ids, wrong_ids [item answer] int64, -1 = no further answer.
    Source: METHODS 8b; McDougall et al. 2023. Raises: NotApplicable where heads do not add to the residual stream as
    they write (norms after attention), or the model's parts were not found.
    """
    correct, wrong = (
        answers_of(ids.to(lm.device), side) for ids, side in ((correct_ids, "correct"), (wrong_ids, "wrong"))
    )
    base, other = lm.batch(clean), lm.batch(donors)

    def run(items: slice) -> Tensor:
        return _Pairs(lm, base.select(items), other.select(items), correct[items], wrong[items]).parts()

    found = in_batches(lm, len(base), base.ids.shape[1], run, progress)
    return Repair(*found.cpu().unbind(dim=-1))


class _Pairs:
    """Some prompts with their donors: one baseline, and a run for each head that starts at its layer."""

    def __init__(self, lm: LanguageModel, clean: Batch, donors: Batch, correct: Tensor, wrong: Tensor) -> None:
        self.lm = lm
        self.answers = (correct, wrong)
        self.items = torch.arange(len(clean), device=clean.ids.device)
        self.last = clean.lengths - 1
        self.donor_z = capture(lm, donors, ["z"])["z"].transpose(2, 3)
        self.baseline: Baseline = record_baseline(lm, clean, lambda *_: None)
        final = capture(lm, clean, ["residual"])["residual"][self.items, -1, self.last]
        self.direction, offset = frozen_direction(lm, widened(final), correct, wrong)
        self.bias, self.clean = offset["norm_bias"] + offset["unembed_bias"], offset["total"]

    def parts(self) -> Tensor:
        """direct, free and frozen of every head: [item layer head 3]."""
        layers = []
        for layer, part in enumerate(require_structure(self.lm).parts):
            lost = self._lost(layer, part)
            layers.append(
                torch.stack([self._of_head(layer, part, lost[:, :, head]) for head in range(self.lm.n_heads)], 1)
            )
        return torch.stack(layers, dim=1)

    def _lost(self, layer: int, part: LayerParts) -> Tensor:
        """What each head no longer writes: [item position head d_model]."""
        if part.attention_write not in (part.attention, part.projection.module if part.projection else None):
            raise NotApplicable(f"{self.lm.name} norms what its heads write, so their direct effect is not their own")
        change = self.baseline.z[layer] - self.donor_z[:, layer]
        return torch.einsum("bthw,hwd->bthd", change, head_weights(self.lm, part))

    def _of_head(self, layer: int, part: LayerParts, lost: Tensor) -> Tensor:
        """[item 3]"""
        run = Restart(
            layer,
            self.baseline.batch.ids,
            self.baseline.inputs[layer],
            {layer: self.baseline.writes[layer] - lost},
        )
        direct = (widened(lost[self.items, self.last]) * part.write_scale * self.direction).sum(dim=-1)
        final = self._final_input(run)
        free = frozen_direction(self.lm, final, *self.answers)[1]["total"] - self.clean + direct
        frozen = (final * self.direction).sum(dim=-1) + self.bias - self.clean + direct
        return torch.stack([direct, free, frozen], dim=-1)

    def _final_input(self, run: Restart) -> Tensor:
        """What enters the final norm at the last real position of a run: [item d_model]."""
        norm, found = require_structure(self.lm).final_norm, []
        assert norm is not None  # noqa: S101  `frozen_direction` refuses

        def take(_: nn.Module, args: tuple[Any, ...]) -> None:
            found.append(args[0].reshape(*run.ids.shape, -1)[self.items, self.last])

        hook = norm.register_forward_pre_hook(take)
        try:
            restart(self.lm, run)
        finally:
            hook.remove()
        return widened(found[0])
