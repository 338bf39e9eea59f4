"""Restart where the change is: replay what a change cannot alter, run only the layers and positions after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mneme.batch import Batch
from mneme.capturing import require_structure
from mneme.interception import AttentionCall, Handler, handled
from mneme.model import LanguageModel
from mneme.structure import Structure, first_of, returned


@dataclass
class Baseline:
    """What one unchanged forward left behind, by layer.

    inputs [item position d_model] enters a layer; z [item position head width]; keys, values [item kv_head position
    width] as they enter attention; writes [item position d_model] is what the attention module returned; hidden
    [item position d_model] are the final hidden states.
    """

    batch: Batch
    inputs: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    writes: list[Tensor] = field(default_factory=list)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))


def record_baseline(lm: LanguageModel, batch: Batch, note: Callable[[AttentionCall, Tensor], None]) -> Baseline:
    """Run a batch once and keep what restarts need; `note` sees each attention call and its Z."""
    baseline = Baseline(batch)

    def watch(call: AttentionCall) -> Tensor:
        z = call.compute()
        baseline.z.append(z)
        baseline.keys.append(call.key)
        baseline.values.append(call.value)
        note(call, z)
        return z

    def attended(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        baseline.writes.append(first_of(output))

    with ExitStack() as stack:
        stack.enter_context(handled(lm.attention_modules, watch))
        for parts in require_structure(lm).parts:
            stack.enter_context(_entering(parts.layer, baseline.inputs.append))
            stack.callback(parts.attention.register_forward_hook(attended).remove)
        baseline.hidden = lm.backbone.hidden(batch.ids)
    return baseline


@dataclass(frozen=True)
class Restart:
    """A run that starts at `layer` from given hidden states.

    Shape: ids, and inputs [unit position d_model] as they enter the layer; write, when given, is what the layer's
    attention module returns instead of running. prefix holds the keys and values [unit kv_head key width] of the
    positions before the given ones, for each layer that runs attention. handler sees the attention calls. Where no
    attention runs (the layer is the last, and its write is given), positions may be left out of ids, inputs, write.
    """

    layer: int
    ids: Tensor
    inputs: Tensor
    write: Tensor | None = None
    prefix: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    handler: Handler | None = None


def restart(lm: LanguageModel, run: Restart) -> Tensor:
    """Final hidden states of a restarted run: [unit position d_model]; counts as one forward."""
    with ExitStack() as stack:
        stack.enter_context(_from_layer(require_structure(lm), run))
        if run.handler is not None:
            stack.enter_context(handled(lm.attention_modules, run.handler))
        if not run.prefix:
            return lm.backbone.hidden(run.ids)
        return lm.backbone.hidden(run.ids, past_key_values=_cache(lm.n_layers, run), use_cache=True)


def restart_rows(lm: LanguageModel, run: Restart, rows: Tensor) -> Tensor:
    """Final hidden states of a restarted run at some positions: rows [unit read] -> [unit read d_model].

    The last layer projects keys and values everywhere, but attends, projects and runs its MLP at the rows only.
    Counts as two forwards. The run must start below the last layer, and its handler must leave that one alone.
    """
    last = lm.n_layers - 1
    states: list[Tensor] = []
    taken: list[Tensor] = []

    def stop_at_last(call: AttentionCall) -> Tensor:
        if call.layer == last:
            lengths = torch.full((len(call.query),), call.key.shape[2], device=call.query.device)
            taken.append(call.inputs(lengths).attend(call.value, rows))
            raise _Enough
        return call.compute() if run.handler is None else run.handler(call)

    with _entering(require_structure(lm).parts[last].layer, states.append), suppress(_Enough):
        restart(lm, replace(run, handler=stop_at_last))
    inputs = states[0].gather(1, rows[:, :, None].expand(-1, -1, states[0].shape[-1]))
    ids = run.ids.gather(1, rows)
    return restart(lm, Restart(last, ids, inputs, handler=lambda _: taken[0]))


class _Enough(Exception):
    """Ends a forward early."""


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module run `forward` instead of its own, and put back what was there."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


@contextmanager
def _entering(layer: nn.Module, note: Callable[[Tensor], None]) -> Iterator[None]:
    """Note the hidden states that enter a layer."""

    def enter(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        note(args[0] if args else options["hidden_states"])

    hook = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _from_layer(structure: Structure, run: Restart) -> Iterator[None]:
    parts = structure.parts[run.layer]

    def enter(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (run.inputs, *args[1:]), options
        return args, options | {"hidden_states": run.inputs}

    def passing(n_values: int | None) -> Callable[..., Any]:
        def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return returned(hidden_states, n_values)

        return forward

    with ExitStack() as stack:
        for below in structure.parts[: run.layer]:
            stack.enter_context(replaced_forward(below.layer, passing(below.layer_returns)))
        hook = parts.layer.register_forward_pre_hook(enter, with_kwargs=True)
        stack.callback(hook.remove)
        if run.write is not None:
            given = returned(run.write, parts.attention_returns)
            stack.enter_context(replaced_forward(parts.attention, lambda *_, **__: given))
        yield


def _cache(n_layers: int, run: Restart) -> DynamicCache:
    """The prefix as a cache; layers that run no attention hold only its length."""
    cache = DynamicCache()
    n_keys = next(iter(run.prefix.values()))[0].shape[2]
    blank = run.inputs.new_zeros(1).expand(len(run.ids), 1, n_keys, 1)
    for layer in range(n_layers):
        cache.update(*run.prefix.get(layer, (blank, blank)), layer)
    return cache
