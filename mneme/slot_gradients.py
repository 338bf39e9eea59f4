"""The gradient of a readout at the input of every slot, kept in factors and put together for some positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mneme.capturing import require_structure
from mneme.cut_forward import CutLayer, CutRun, Inputs
from mneme.head_entries import HeadEntry
from mneme.model import LanguageModel
from mneme.norm_slopes import NormSlope, slope_of


class HeadGradients(Protocol):
    """Gradients at the query, key and value inputs of the heads of one layer."""

    def at(self, positions: slice) -> Tensor:
        """[item slot position d_model] of some positions: queries, then keys, then values of all heads."""


@dataclass(frozen=True)
class SplitGradients:
    """Before the norm, made when asked for: of gradients at the outputs of the projections [item position head width].

    Of one head's query, say, gradient @ W_q^T is the gradient after the norm; the norm's own gradient takes it on.
    """

    entry: HeadEntry
    entering: Tensor
    projected: Inputs

    def at(self, positions: slice) -> Tensor:
        """[item slot position d_model] of some positions."""
        assert self.entry.blocks is not None and self.entry.norm is not None  # noqa: S101, PT018  `sweep` chose this
        normed = []
        for block, part in zip(self.entry.blocks, self.projected, strict=True):
            weight = block.weight.repeat_interleave(part.shape[2] // len(block.columns), dim=0)
            normed.append(torch.einsum("iphw,hdw->ihpd", part[:, positions], weight.to(part)))
        return through(self.entry.norm, self.entering[:, positions], torch.cat(normed, dim=1))


@dataclass(frozen=True)
class FoldedGradients:
    """The same where the norm's gradient has a closed form, summed over runs before anything is as wide as the stream.

    projected [item position head width], queries, keys and values: gradients times the norm's factor; along: by run the
    core of its norm [item position d_model] and how much of it each slot takes away [item slot position].
    """

    entry: HeadEntry
    gain: Tensor
    is_centred: bool
    projected: Inputs
    along: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls, entry: HeadEntry, slope: NormSlope, projected: Inputs, made: Mapping[nn.Module, Tensor]
    ) -> FoldedGradients:
        """Of one run; made: what the modules of the blocks gave in it [item position width].

        How much of the core a slot takes away is gradient . factor * gain * core @ W, and the latter is what the module
        gave without its bias and the norm's: it is not computed again.
        """
        assert entry.blocks is not None  # noqa: S101  `_heads` chose this
        scaled = [slope.factor[:, :, None, None] * part for part in projected]
        taken = []
        for block, part in zip(entry.blocks, projected, strict=True):
            constant = torch.einsum("d,hdw->hw", slope.shift, block.weight.to(part))
            constant = constant if block.bias is None else constant + block.bias
            seen = made[block.module][..., block.columns] - constant
            n_shared = part.shape[2] // len(block.columns)
            taken.append((part * seen.repeat_interleave(n_shared, dim=2)).sum(dim=-1).transpose(1, 2))
        along = slope.core, slope.bend[:, None] * torch.cat(taken, dim=1)
        return cls(entry, slope.gain, slope.is_centred, (scaled[0], scaled[1], scaled[2]), [along])

    def at(self, positions: slice) -> Tensor:
        """[item slot position d_model] of some positions."""
        assert self.entry.blocks is not None  # noqa: S101  `_heads` chose this
        found = []
        for block, part in zip(self.entry.blocks, self.projected, strict=True):
            weight = self.gain[:, None] * block.weight.to(part)
            weight = weight - weight.mean(dim=1, keepdim=True) if self.is_centred else weight
            weight = weight.repeat_interleave(part.shape[2] // len(block.columns), dim=0)
            found.append(torch.einsum("iphw,hdw->ihpd", part[:, positions], weight))
        total = torch.cat(found, dim=1)
        cores = torch.stack([core[:, positions] for core, _ in self.along], dim=2)  # [item position run d_model]
        shares = torch.stack([share[:, :, positions] for _, share in self.along], dim=-1)  # [item slot position run]
        return total - torch.einsum("ispr,iprd->ispd", shares, cores)


@dataclass(frozen=True)
class WholeGradients:
    """Where heads mix before attention: one gradient for each slot, kept whole [item slot position d_model]."""

    slots: Tensor

    def at(self, positions: slice) -> Tensor:
        """[item slot position d_model] of some positions."""
        return self.slots[:, :, positions]


@dataclass(frozen=True)
class SummedGradients:
    """A weighted sum of gradients at the same slots in several runs."""

    parts: Sequence[HeadGradients]
    weights: Sequence[float]

    def at(self, positions: slice) -> Tensor:
        """[item slot position d_model] of some positions."""
        total = self.weights[0] * self.parts[0].at(positions)
        for weight, part in zip(self.weights[1:], self.parts[1:], strict=True):
            total.add_(part.at(positions), alpha=weight)
        return total


def _sum_of(parts: Sequence[HeadGradients], weights: Sequence[float]) -> HeadGradients:
    """A weighted sum of gradients at the same slots, put together at once where all have a closed form."""
    folded = [part for part in parts if isinstance(part, FoldedGradients)]
    if len(folded) < len(parts):
        return SummedGradients(parts, weights)
    first = folded[0]
    query, key, value = (
        torch.stack([weight * part.projected[place] for weight, part in zip(weights, folded, strict=True)]).sum(dim=0)
        for place in range(len(first.projected))
    )
    pairs = zip(weights, folded, strict=True)
    along = [(core, weight * share) for weight, part in pairs for core, share in part.along]
    return FoldedGradients(first.entry, first.gain, first.is_centred, (query, key, value), along)


@dataclass(frozen=True)
class LayerGradients:
    """Gradients at the slots of one layer; heads is None where the run was given what they write.

    Shape: mlp [item position d_model]; output [item position d_model], what the attention module returned.
    """

    heads: HeadGradients | None
    mlp: Tensor
    output: Tensor


def sweep(
    lm: LanguageModel, entries: Sequence[HeadEntry], run: CutRun, gradient: Tensor, *, is_grouped: bool = False
) -> list[LayerGradients]:
    """Gradients at the slots of the layers of a cut run, first layer first.

    gradient [item position d_model] is that at the logits, before the final norm. is_grouped: one key and one value
    slot for the query heads that share them, and not one for each. From the last layer down, each piece
    of a layer is gone through backwards once; together that is one ordinary backward pass. The run's graph is used up.
    """
    found: list[LayerGradients] = []
    scales = [part.write_scale for part in require_structure(lm).parts]
    while run.layers:
        layer = run.layers.pop()
        index = run.first + len(run.layers)
        entry, scale = entries[index], scales[index]
        reads = layer.entering if entry.is_parallel else layer.write_leaf
        mlp = torch.autograd.grad(layer.mlp, reads, scale * gradient, retain_graph=True)[0]
        if not entry.is_parallel:
            mlp = mlp / scale
        gradient = gradient + mlp
        heads: HeadGradients | None = None
        if layer.inputs is not None and layer.leaves is not None:
            written = scale * (gradient - mlp if entry.is_parallel else gradient)
            at_leaves = torch.autograd.grad(layer.write, layer.leaves, written)
            heads, into = _heads(entry, layer, (at_leaves[0], at_leaves[1], at_leaves[2]), is_grouped=is_grouped)
            gradient = gradient + into
        found.append(LayerGradients(heads, mlp, layer.output))
    return found[::-1]


def summed(runs: Sequence[Sequence[LayerGradients]], weights: Sequence[float]) -> list[LayerGradients]:
    """Weighted sums over runs of the gradients at the slots of each layer; the output is that of the first run."""
    found = []
    for layers in zip(*runs, strict=True):
        heads = [each.heads for each in layers if each.heads is not None]
        mlp = sum((weight * each.mlp for weight, each in zip(weights, layers, strict=True)), torch.zeros(()))
        found.append(LayerGradients(_sum_of(heads, weights), mlp, layers[0].output))
    return found


def through(norm: nn.Module, states: Tensor, gradients: Tensor) -> Tensor:
    """The gradient before a norm, of several after it at the same states: [item slot position d_model], like them.

    Shape: states [item position d_model].
    """
    copies = states[:, None].expand_as(gradients).detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(norm(copies), copies, gradients)[0]


def _heads(entry: HeadEntry, layer: CutLayer, at: Inputs, *, is_grouped: bool) -> tuple[HeadGradients, Tensor]:
    """Gradients of the heads' slots, and their sum at what enters the layer [item position d_model]."""
    inputs = layer.inputs
    assert inputs is not None  # noqa: S101  the caller checked
    n_shared = at[1].shape[1] // inputs[1].shape[1]
    at_inputs = at[0], _shared(at[1], n_shared), _shared(at[2], n_shared)
    outputs = [layer.made[module][1] for module in entry.modules]
    into, *projected = torch.autograd.grad(inputs, (layer.entering, *outputs), at_inputs, retain_graph=True)
    if entry.blocks is None:
        return WholeGradients(_whole(layer.entering, inputs, at_inputs if is_grouped else at)), into
    by_module = dict(zip(entry.modules, projected, strict=True))
    taken = [by_module[block.module][..., block.columns] for block in entry.blocks]
    if n_shared > 1 and not is_grouped:
        taken[1:] = _each_sharer(entry, inputs, at, outputs)
    parts, slope = (taken[0], taken[1], taken[2]), slope_of(entry.norm or nn.Identity(), layer.entering)
    if slope is None:
        return SplitGradients(entry, layer.entering.detach(), parts), into
    made = {module: output.detach() for module, output in zip(entry.modules, outputs, strict=True)}
    return FoldedGradients.of(entry, slope, parts, made), into


def _shared(gradients: Tensor, n_shared: int) -> Tensor:
    """Gradients of query heads [item head position width] at the keys or values that `n_shared` of them share."""
    items, n_heads, *rest = gradients.shape
    return gradients.reshape(items, n_heads // n_shared, n_shared, *rest).sum(dim=2)


def _each_sharer(entry: HeadEntry, inputs: Inputs, at: Inputs, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients at the projections of keys and values, of each query head apart: two [item position head width]."""
    assert entry.blocks is not None  # noqa: S101  the caller checked
    n_shared = at[1].shape[1] // inputs[1].shape[1]
    found: list[list[Tensor]] = [[], []]
    for sharer in range(n_shared):
        some = [each[:, sharer::n_shared] for each in at[1:]]
        made = torch.autograd.grad(inputs[1:], outputs, some, retain_graph=True, allow_unused=True)
        by_module = dict(zip(entry.modules, made, strict=True))
        for part, block in zip(found, entry.blocks[1:], strict=True):
            part.append(by_module[block.module][..., block.columns])
    return [torch.stack(part, dim=3).flatten(2, 3) for part in found]


def _whole(entering: Tensor, inputs: Inputs, at: Inputs) -> Tensor:
    """One pass backwards for each slot: [item slot position d_model]."""
    found = []
    for states, gradients in zip(inputs, at, strict=True):
        n_shared = gradients.shape[1] // states.shape[1]
        for head in range(gradients.shape[1]):
            alone = torch.zeros_like(states)
            alone[:, head // n_shared] = gradients[:, head]
            found.append(torch.autograd.grad(states, entering, alone, retain_graph=True)[0])
    return torch.stack(found, dim=1)
