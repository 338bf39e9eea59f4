"""The residual stream of a model in which every source writes what it does in an ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import items_per_group
from mneme.capturing import head_weights, require_structure
from mneme.layer_runs import heads_write
from mneme.model import LanguageModel
from mneme.restart import Baseline, record_baseline

EdgeAblation = Literal["corrupt", "mean", "zero"]
STORED = 12  # tensors a layer that a baseline keeps of each prompt


@dataclass(frozen=True)
class SourceValues:
    """What sources write: stream [item position d_model]; by layer z [item position head width] and mlps, like stream.

    stream enters the first layer; mlps are what is added to the residual stream. item is 1 where all share the values.
    """

    stream: Tensor
    z: list[Tensor]
    mlps: list[Tensor]

    @classmethod
    def of(cls, lm: LanguageModel, baseline: Baseline) -> SourceValues:
        """The values of a run that kept its MLPs."""
        parts = require_structure(lm).parts
        scaled = [part.write_scale * mlp for part, mlp in zip(parts, baseline.mlps, strict=True)]
        return cls(baseline.inputs[0], baseline.z, scaled)

    def for_each(self, n_items: int, n_positions: int) -> SourceValues:
        """Values that all prompts share, for some prompts and their first positions."""

        def some(states: Tensor) -> Tensor:
            return states[:, :n_positions].expand(n_items, *[-1] * (states.ndim - 1))

        return SourceValues(some(self.stream), [some(each) for each in self.z], [some(each) for each in self.mlps])


@dataclass(frozen=True)
class AblatedStream:
    """What slots read when every source writes its ablated value: entering and middle by layer, and what leaves.

    outputs: by layer the attention module's output, its bias included. All [item position d_model].
    """

    values: SourceValues
    entering: list[Tensor]
    middle: list[Tensor]
    outputs: list[Tensor]
    leaving: Tensor

    @classmethod
    def of(cls, lm: LanguageModel, values: SourceValues) -> AblatedStream:
        """Sums of what is written; biases after the heads belong to no source and stay."""
        entering, middle, outputs, stream = [], [], [], values.stream
        for layer, part in enumerate(require_structure(lm).parts):
            assert part.projection is not None  # noqa: S101  head_weights refuses
            output = torch.einsum("iphw,hwd->ipd", values.z[layer], head_weights(lm, part))
            outputs.append(output if part.projection.bias is None else output + part.projection.bias)
            entering.append(stream)
            middle.append(stream + heads_write(lm, layer, outputs[-1]))
            stream = middle[-1] + values.mlps[layer]
        return cls(values, entering, middle, outputs, stream)


def shared_values(lm: LanguageModel, corrupt: Batch, ablation: EdgeAblation) -> SourceValues:
    """What every prompt's sources write in an ablation that is the same for all: `zero`, or the `mean` by position.

    The mean is over the corrupt prompts that have the position. Shape: item is 1.
    """
    if ablation == "zero":
        one = SourceValues.of(lm, record_baseline(lm, corrupt.select(slice(0, 1)), lambda *_: None, with_mlps=True))
        n_tokens = corrupt.ids.shape[1]
        return SourceValues(
            one.stream.new_zeros(1, n_tokens, lm.d_model),
            [each.new_zeros(1, n_tokens, *each.shape[2:]) for each in one.z],
            [each.new_zeros(1, n_tokens, lm.d_model) for each in one.mlps],
        )
    size, sums = items_per_group(lm, corrupt.ids.shape[1], STORED), [torch.zeros(())] * (1 + 2 * lm.n_layers)
    for start in range(0, len(corrupt), size):
        some = corrupt.select(slice(start, start + size))
        values = SourceValues.of(lm, record_baseline(lm, some, lambda *_: None, with_mlps=True))
        found = [values.stream, *values.z, *values.mlps]
        sums = [total + _total(each, some, corrupt.ids.shape[1]) for total, each in zip(sums, found, strict=True)]
    counts = corrupt.padding.sum(dim=0).clamp_min(1)
    means = [(total / counts.reshape(-1, *[1] * (total.ndim - 1))).to(lm.dtype)[None] for total in sums]
    return SourceValues(means[0], means[1 : 1 + lm.n_layers], means[1 + lm.n_layers :])


def _total(states: Tensor, batch: Batch, n_positions: int) -> Tensor:
    """Sum over the prompts of states [item position ...] that are no padding: [n_positions ...] float64."""
    is_real = batch.padding.bool().reshape(*batch.ids.shape, *[1] * (states.ndim - 2))
    total = states.double().masked_fill(~is_real, 0.0).sum(dim=0)
    padding = total.new_zeros(n_positions - len(total), *total.shape[1:])
    return torch.cat([total, padding])
