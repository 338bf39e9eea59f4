"""How the heads of a layer read the residual stream, found from the running model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mneme.capturing import require_structure
from mneme.cut_forward import CutLayer, cut_forward, post_norm
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.restart import Enough, Restart
from mneme.structure import LayerParts


@dataclass(frozen=True)
class Block:
    """Where the outputs of a linear module hold the query, the key or the value of each head.

    columns: [head width] int64. is_transposed: the module's output is input @ weight.T, and not input @ weight.
    """

    module: nn.Module
    columns: Tensor
    is_transposed: bool

    @property
    def weight(self) -> Tensor:
        """What each head makes of the module's input: [head d_model width]."""
        weight = torch.as_tensor(self.module.weight)
        matrix = weight.T if self.is_transposed else weight
        n_columns, first = self.columns.numel(), int(self.columns[0, 0])
        if torch.equal(self.columns.flatten(), torch.arange(first, first + n_columns).to(self.columns)):
            side_by_side = matrix[:, first : first + n_columns]  # as they lie: no copy
            return side_by_side.reshape(len(matrix), *self.columns.shape).movedim(1, 0)
        return matrix[:, self.columns].movedim(1, 0)

    @property
    def bias(self) -> Tensor | None:
        """What is added for each head [head width], None where nothing is."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else torch.as_tensor(bias)[self.columns]


@dataclass(frozen=True)
class HeadEntry:
    """How the heads and the MLP of one layer read the residual stream.

    is_parallel: the MLP reads what enters the layer, and not what its heads write. post_norm: what the sum of the
    heads passes before it is added, None = nothing. norm: from the stream to the attention module's input, the
    identity where nothing lies between. blocks: queries, keys and values in the outputs of the modules that read that
    input; None where heads mix on the way (one norm over all heads, latent attention), or norm is None.
    """

    is_parallel: bool
    post_norm: nn.Module | None
    norm: nn.Module | None
    blocks: tuple[Block, Block, Block] | None

    @property
    def modules(self) -> list[nn.Module]:
        """The modules of the blocks, each once."""
        return [] if self.blocks is None else list(dict.fromkeys(each.module for each in self.blocks))


_FOUND: WeakKeyDictionary[LanguageModel, tuple[HeadEntry, ...]] = WeakKeyDictionary()  # as long as the model lives


def find_entries(lm: LanguageModel) -> tuple[HeadEntry, ...]:
    """How each layer reads the residual stream, from one forward of eight tokens and its gradients; found once a model.

    Raises: NotApplicable where what the layers add to the stream, or how their MLPs read it, was not found.
    """
    if lm not in _FOUND:
        _FOUND[lm] = _entries(lm)
    return _FOUND[lm]


@torch.enable_grad()
def _entries(lm: LanguageModel) -> tuple[HeadEntry, ...]:
    parts = require_structure(lm).parts
    ids = torch.arange(8, device=lm.device)[None] % lm.vocab_size
    leaves = [[each for each in part.layer.modules() if next(each.children(), None) is None] for part in parts]
    run = cut_forward(lm, Restart(0, ids, stream_input(lm, ids)), leaves)
    return tuple(_entry(lm, *each) for each in zip(parts, run.layers, strict=True))


@torch.no_grad()
def stream_input(lm: LanguageModel, ids: Tensor) -> Tensor:
    """What enters the first layer [item position d_model]: embeddings with all that is done to them."""
    found: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        found.append(args[0] if args else options["hidden_states"])
        raise Enough

    hook = require_structure(lm).parts[0].layer.register_forward_pre_hook(note, with_kwargs=True)
    with suppress(Enough):
        lm.backbone.hidden(ids)
    hook.remove()
    return found[0]


def _entry(lm: LanguageModel, parts: LayerParts, layer: CutLayer) -> HeadEntry:
    is_parallel = not _depends(layer.mlp, layer.write_leaf)
    if is_parallel and not _depends(layer.mlp, layer.entering):
        raise NotApplicable(f"{lm.name}: how its MLPs read the residual stream was not found, so it has no edges")
    norm = _norm(layer)
    return HeadEntry(is_parallel, post_norm(lm, parts), norm, None if norm is None else _blocks(layer))


def _depends(output: Tensor, on: Tensor) -> bool:
    found = torch.autograd.grad(output, on, torch.ones_like(output), retain_graph=True, allow_unused=True)[0]
    return found is not None


def _norm(layer: CutLayer) -> nn.Module | None:
    if layer.given is layer.entering:
        return nn.Identity()
    made = (module for module, (read, output) in layer.made.items() if read is layer.entering and output is layer.given)
    return next(made, None)


def _blocks(layer: CutLayer) -> tuple[Block, Block, Block] | None:
    """Blocks, where each column of the modules belongs to one head's query, key or value."""
    assert layer.inputs is not None  # noqa: S101  no writes were given
    linear = {module: found for module in layer.made if (found := _is_transposed(module, layer)) is not None}
    modules = list(linear)
    blocks = []
    for part in layer.inputs:
        touched = _touched(part, [layer.made[module][1] for module in modules]) if modules else None
        if touched is None:
            return None
        place, columns = touched
        blocks.append(Block(modules[place], columns, linear[modules[place]]))
    for module in {each.module for each in blocks}:
        columns = torch.cat([each.columns.flatten() for each in blocks if each.module is module])
        if not torch.equal(columns.sort().values, torch.arange(layer.made[module][1].shape[-1]).to(columns)):
            return None
    return blocks[0], blocks[1], blocks[2]


def _is_transposed(module: nn.Module, layer: CutLayer) -> bool | None:
    """Which way the weight of a module that reads the attention module's input lies; None where it is not linear."""
    weight, (read, output) = getattr(module, "weight", None), layer.made[module]
    if read is not layer.given or not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    bias = getattr(module, "bias", None)
    tolerance = 1e-5 if output.dtype in (torch.float32, torch.float64) else 2e-2
    for is_transposed in (True, False):
        matrix = weight.T if is_transposed else weight
        if matrix.shape == (read.shape[-1], output.shape[-1]):
            made = (read @ matrix if bias is None else read @ matrix + torch.as_tensor(bias)).detach()
            if float((made - output.detach()).abs().max()) <= tolerance * float(output.detach().abs().max()):
                return is_transposed
    return None


def _touched(inputs: Tensor, outputs: Sequence[Tensor]) -> tuple[int, Tensor] | None:
    """The module's place, and the columns [head width] that each head depends on; None where that is no even block."""
    places: set[int] = set()
    columns: list[Tensor] = []
    for head in range(inputs.shape[1]):
        states = inputs[:, head]
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(head)).to(states)
        gradients = torch.autograd.grad(states, outputs, weights, retain_graph=True, allow_unused=True)
        used = {place: _used(each) for place, each in enumerate(gradients) if each is not None and bool(each.any())}
        places |= used.keys()
        columns += list(used.values())
    is_even = len(columns) == inputs.shape[1] and len({len(each) for each in columns}) == 1
    return (places.pop(), torch.stack(columns)) if is_even and len(places) == 1 else None


def _used(gradient: Tensor) -> Tensor:
    return (gradient != 0).flatten(0, -2).any(dim=0).nonzero()[:, 0]
