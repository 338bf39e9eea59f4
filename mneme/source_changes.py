"""What every source writes in a corrupt run and not in the clean one, kept as heads and projected when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from mneme.capturing import head_weights, require_structure
from mneme.cut_forward import post_norm
from mneme.layer_runs import heads_write
from mneme.model import LanguageModel
from mneme.restart import Baseline


@dataclass(frozen=True)
class SourceChanges:
    """Corrupt minus clean: stream [item position d_model], z by layer [item position head width], mlps like stream.

    stream is what enters the first layer; mlps are what is added to the residual stream.
    """

    lm: LanguageModel
    stream: Tensor
    z: list[Tensor]
    mlps: list[Tensor]

    @classmethod
    def between(cls, lm: LanguageModel, clean: Baseline, corrupt: Baseline) -> SourceChanges:
        """The changes from a clean to a corrupt baseline; both kept their MLPs."""
        parts = require_structure(lm).parts
        return cls(
            lm,
            corrupt.inputs[0] - clean.inputs[0],
            [after - before for after, before in zip(corrupt.z, clean.z, strict=True)],
            [
                part.write_scale * (after - before)
                for part, after, before in zip(parts, corrupt.mlps, clean.mlps, strict=True)
            ],
        )

    def of_input(self, positions: slice) -> Tensor:
        """The input alone: [item source=1 position d_model]."""
        return self.stream[:, None, positions]

    def of_mlp(self, layer: int, positions: slice) -> Tensor:
        """One MLP: [item source=1 position d_model]."""
        return self.mlps[layer][:, None, positions]

    def of_heads(self, layer: int, positions: slice, through: Callable[[Tensor], Tensor]) -> Tensor:
        """The heads of a layer: [item head position d_model]; `through` takes them on from the attention's output."""
        weights = head_weights(self.lm, require_structure(self.lm).parts[layer])
        return through(torch.einsum("iphw,hwd->ihpd", self.z[layer][:, positions], weights))


def linearly(lm: LanguageModel, layer: int, output: Tensor) -> Callable[[Tensor], Tensor]:
    """To first order, by how much what the heads add changes when the attention's output does: for `of_heads`.

    output [item position d_model] is the attention module's where the change is small. Without a norm after it, exact.
    """
    part = require_structure(lm).parts[layer]
    norm = post_norm(lm, part)

    def through(changes: Tensor) -> Tensor:
        if norm is None:
            return part.write_scale * changes
        at = output[:, None].expand_as(changes).contiguous()
        return part.write_scale * torch.as_tensor(jvp(norm, (at,), (changes.contiguous(),))[1])

    return through


def exactly(lm: LanguageModel, layer: int, output: Tensor) -> Callable[[Tensor], Tensor]:
    """The same without the approximation: through a norm, what is added with the change minus without it."""

    def through(changes: Tensor) -> Tensor:
        return heads_write(lm, layer, output[:, None] + changes) - heads_write(lm, layer, output)[:, None]

    return through
