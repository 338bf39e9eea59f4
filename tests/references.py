"""Slow, obvious references: plain hooks, one full forward for every cell, everything recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.model import LanguageModel
from mneme.readouts import Readout

Change = Callable[[int, Tensor], Tensor]


def projections(lm: LanguageModel) -> list[nn.Module]:
    """Output projection of each layer, found by its name: the reference must not use what it checks."""
    names = ("c_proj", "o_proj", "dense", "out_proj")
    modules = [
        next(child for name, child in module.named_children() if name in names) for module in lm.attention_modules
    ]
    assert len(modules) == lm.n_layers
    return modules


@contextmanager
def changed_heads(lm: LanguageModel, change: Change) -> Iterator[None]:
    """Replace Z of every layer [item position head width] by change(layer, z), at the input of the projection."""

    def hook_of(layer: int) -> Callable[..., tuple[Tensor]]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].unflatten(-1, (lm.n_heads, -1))
            return (change(layer, z.clone()).flatten(2),)

        return hook

    hooks = [module.register_forward_pre_hook(hook_of(layer)) for layer, module in enumerate(projections(lm))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stock_logits(lm: LanguageModel, batch: Batch) -> Tensor:
    """Logits of the whole model, with the attention mask that padding asks for."""
    mask = None if batch.is_full else batch.padding
    return lm.hf(input_ids=batch.ids, attention_mask=mask, use_cache=False).logits


def read(readout: Readout, logits: Tensor, batch: Batch) -> Tensor:
    """The readout one prompt and one position at a time: [item]."""
    found = []
    for item in range(len(batch)):
        last = int(batch.lengths[item]) - 1
        places = [last] if readout.positions is None else torch.nonzero(readout.positions[item])[:, 0].tolist()
        values = []
        for place in places:
            row = logits[item, place][None]
            chosen = row if readout.columns is None else row[:, readout.columns[item]]
            values.append(readout.value(chosen, torch.tensor([item]), torch.tensor([place])))
        found.append(torch.cat(values).mean())
    return torch.stack(found)


def all_z(lm: LanguageModel, batch: Batch) -> list[Tensor]:
    """Z of every layer [item position head width]."""
    found: list[Tensor] = []

    def note(_: int, z: Tensor) -> Tensor:
        found.append(z)
        return z

    with changed_heads(lm, note):
        stock_logits(lm, batch)
    return found


def each_head(lm: LanguageModel, batch: Batch, readout: Readout, replaced: list[Tensor]) -> Tensor:
    """The readout with Z of one head replaced by that of `replaced`, one full forward per head: [item layer head]."""
    rows = []
    for layer in range(lm.n_layers):
        for head in range(lm.n_heads):

            def change(here: int, z: Tensor, layer: int = layer, head: int = head) -> Tensor:
                if here == layer:
                    z[:, :, head] = replaced[layer][:, :, head]
                return z

            with changed_heads(lm, change):
                rows.append(read(readout, stock_logits(lm, batch), batch))
    return torch.stack(rows, dim=1).unflatten(1, (lm.n_layers, lm.n_heads))
