"""One forward cut where layers read and write, so that each piece has a gradient of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mneme.capturing import require_structure
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.restart import Enough, Restart, restart
from mneme.structure import LayerParts, first_of

Inputs = tuple[Tensor, Tensor, Tensor]


@dataclass
class CutLayer:
    """One layer of a run. Every leaf starts a new graph; what is made of it ends before the next.

    entering: leaf, what enters the layer; given: what enters the attention module; inputs: queries, keys and values as
    they enter attention, leaves: the same, keys and values once per query head, both None where writes were given;
    made: by watched module, the tensor that it read and its output; output: what the attention module returned,
    before any norm after it; write: what the heads add to the stream, write_leaf: the same, from which the MLP starts;
    mlp: what the MLP adds. Writes and mlp are before the layer's write scale. Shape: [item position d_model],
    [item head position width].
    """

    entering: Tensor
    given: Tensor = field(default_factory=lambda: torch.empty(0))
    inputs: Inputs | None = None
    leaves: Inputs | None = None
    made: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    write: Tensor = field(default_factory=lambda: torch.empty(0))
    write_leaf: Tensor = field(default_factory=lambda: torch.empty(0))
    mlp: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class CutRun:
    """The layers of a run from `first` on, and what leaves the last one [item position d_model]."""

    first: int
    layers: list[CutLayer]
    leaving: Tensor


def cut_forward(lm: LanguageModel, run: Restart, watched: Sequence[Sequence[nn.Module]]) -> CutRun:
    """Run the layers of a restarted run, cut; counts as one forward. watched: modules by layer, for `CutLayer.made`.

    The run has no prefix, no handler and no MLPs given. Raises: NotApplicable where what the layers add to the
    residual stream was not found.
    """
    recorder = _Recorder(lm, replace(run, inputs=_leaf(run.inputs)), watched)
    with torch.enable_grad(), recorder.listening(), suppress(Enough):
        restart(lm, recorder.run)
    return CutRun(run.layer, recorder.layers, recorder.leaving)


def post_norm(lm: LanguageModel, parts: LayerParts) -> nn.Module | None:
    """The module between the attention module's output and the residual stream, None where there is none.

    Raises: NotApplicable where what the layer adds to the stream, or its output projection, was not found.
    """
    if parts.attention_write is None or parts.mlp_write is None or parts.projection is None:
        raise NotApplicable(f"{lm.name}: what its layers add to the residual stream was not found, so it has no edges")
    return None if parts.attention_write in set(parts.attention.modules()) else parts.attention_write


class OneEach(nn.Module):
    """What attention asks of a module whose query heads each have keys and values of their own."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.is_causal = getattr(module, "is_causal", True)
        self.layer_idx = module.layer_idx


def ungrouped(call: AttentionCall, inputs: Inputs) -> AttentionCall:
    """The call with other queries, and with keys and values for each query head: all [item head position width]."""
    query, key, value = inputs
    return replace(call, module=OneEach(call.module), query=query, key=key, value=value)


def once_per_head(call: AttentionCall) -> Inputs:
    """Queries, keys and values of a call, keys and values repeated for the query heads that share them."""
    n_shared = call.query.shape[1] // call.key.shape[1]
    return call.query, call.key.repeat_interleave(n_shared, dim=1), call.value.repeat_interleave(n_shared, dim=1)


class _Recorder:
    """The hooks of one cut forward, and what they noted."""

    def __init__(self, lm: LanguageModel, run: Restart, watched: Sequence[Sequence[nn.Module]]) -> None:
        self.parts = require_structure(lm).parts
        self.norms = [post_norm(lm, parts) for parts in self.parts]
        self.shape = (*run.ids.shape, lm.d_model)
        self.watched = watched
        self.run = replace(run, handler=self.attention)
        self.layers = [CutLayer(run.inputs)]
        self.leaving = torch.empty(0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """All hooks, gone afterwards whatever happens."""
        with ExitStack() as stack:
            for layer in range(self.run.layer, len(self.parts)):
                for handle in self._hooks(layer):
                    stack.callback(handle.remove)
            yield

    def attention(self, call: AttentionCall) -> Tensor:
        """Attention handler: cut before it, once for every query head."""
        query, key, value = once_per_head(call)
        self.layers[-1].inputs = call.query, call.key, call.value
        leaves = _leaf(query), _leaf(key), _leaf(value)
        self.layers[-1].leaves = leaves
        return ungrouped(call, leaves).compute()

    def _hooks(self, layer: int) -> Iterator[torch.utils.hooks.RemovableHandle]:
        parts, norm = self.parts[layer], self.norms[layer]
        if layer > self.run.layer:
            yield parts.layer.register_forward_pre_hook(self._enter, with_kwargs=True)
        yield parts.attention.register_forward_pre_hook(self._give, with_kwargs=True)
        for module in self.watched[layer]:
            yield module.register_forward_hook(self._watch, with_kwargs=True)
        yield parts.attention.register_forward_hook(self._note_output)
        yield (parts.attention if norm is None else norm).register_forward_hook(self._cut_write)
        if parts.mlp_write is not None:
            yield parts.mlp_write.register_forward_hook(self._note_mlp)
        if layer == len(self.parts) - 1:
            yield parts.layer.register_forward_hook(self._leave)

    def _enter(self, _: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        leaf = _leaf(args[0] if args else options["hidden_states"])
        self.layers.append(CutLayer(leaf))
        return ((leaf, *args[1:]), options) if args else (args, options | {"hidden_states": leaf})

    def _give(self, _: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.layers[-1].given = args[0] if args else options["hidden_states"]

    def _watch(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        given = args[0] if args else next(iter(options.values()), None)
        if isinstance(given, Tensor) and isinstance(output, Tensor):
            self.layers[-1].made[module] = given, output

    def _note_output(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        self.layers[-1].output = first_of(output).detach()

    def _cut_write(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        here = self.layers[-1]
        here.write = first_of(output)
        here.write_leaf = _leaf(here.write)
        return (here.write_leaf, *output[1:]) if isinstance(output, tuple) else here.write_leaf

    def _note_mlp(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        self.layers[-1].mlp = first_of(output).reshape(self.shape)

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        self.leaving = first_of(output).detach()
        raise Enough


def _leaf(states: Tensor) -> Tensor:
    return states.detach().requires_grad_()
