"""Restart where the change is: replay what a change cannot alter, run only the layers and positions after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import require_structure
from mneme.interception import AttentionCall, Handler, handled
from mneme.model import LanguageModel
from mneme.prefix_cache import Prefix
from mneme.structure import Structure, first_of, returned


@dataclass
class Baseline:
    """What one unchanged forward left behind, by layer.

    inputs [item position d_model] enters a layer; z [item position head width]; keys, values [item kv_head position
    width] as they enter attention; writes, mlps [item position d_model] are what the attention module and the MLP
    returned; hidden [item position d_model] are the final hidden states.
    """

    batch: Batch
    inputs: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    writes: list[Tensor] = field(default_factory=list)
    mlps: list[Tensor] = field(default_factory=list)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))


def record_baseline(
    lm: LanguageModel, batch: Batch, note: Callable[[AttentionCall, Tensor], None], *, with_mlps: bool = False
) -> Baseline:
    """Run a batch once and keep what restarts need (mlps only on request); `note` sees each attention call and Z."""
    baseline = Baseline(batch)

    def watch(call: AttentionCall) -> Tensor:
        z = call.compute()
        baseline.z.append(z)
        baseline.keys.append(call.key)
        baseline.values.append(call.value)
        note(call, z)
        return z

    def keep(states: list[Tensor]) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            states.append(first_of(output).reshape(*batch.ids.shape, -1))

        return hook

    with ExitStack() as stack:
        stack.enter_context(handled(lm.attention_modules, watch))
        for parts in require_structure(lm).parts:
            stack.enter_context(_entering(parts.layer, baseline.inputs.append))
            stack.callback(parts.attention.register_forward_hook(keep(baseline.writes)).remove)
            if with_mlps and parts.mlp_write is not None:
                stack.callback(parts.mlp_write.register_forward_hook(keep(baseline.mlps)).remove)
        baseline.hidden = lm.backbone.hidden(batch.ids)
    return baseline


@dataclass(frozen=True)
class Restart:
    """A run that starts at `layer` from given hidden states.

    Shape: ids, and inputs [unit position d_model] as they enter the layer; writes and mlps, by layer, are what its
    attention module and its MLP return instead of running. prefix holds the keys and values of the positions before the
    given ones, None = there are none. handler sees the attention calls.
    Where no attention runs (writes are given for all layers from the first on), positions may be left out.
    """

    layer: int
    ids: Tensor
    inputs: Tensor
    writes: dict[int, Tensor] = field(default_factory=dict)
    mlps: dict[int, Tensor] = field(default_factory=dict)
    prefix: Prefix | None = None
    handler: Handler | None = None


def restart(lm: LanguageModel, run: Restart) -> Tensor:
    """Final hidden states of a restarted run: [unit position d_model]; counts as one forward."""
    with ExitStack() as stack:
        stack.enter_context(_from_layer(require_structure(lm), run))
        if run.handler is not None:
            stack.enter_context(handled(lm.attention_modules, run.handler))
        if run.prefix is None:
            return lm.backbone.hidden(run.ids)
        return lm.backbone.hidden(run.ids, past_key_values=run.prefix.cache(), use_cache=True)


def restart_rows(lm: LanguageModel, run: Restart, rows: Tensor) -> Tensor:
    """Final hidden states of a restarted run at some positions: rows [unit read] -> [unit read d_model].

    The last layer projects keys and values everywhere, but attends, projects and runs its MLP at the rows only.
    Counts as two forwards. The run's writes and its handler must leave the last layer alone.
    """
    last = lm.n_layers - 1
    states = [run.inputs] if run.layer == last else []
    taken: list[Tensor] = []

    def stop_at_last(call: AttentionCall) -> Tensor:
        if call.layer == last:
            lengths = torch.full((len(call.query),), call.key.shape[2], device=call.query.device)
            taken.append(call.inputs(lengths).attend(call.value, rows))
            raise Enough
        return call.compute() if run.handler is None else run.handler(call)

    with _entering(require_structure(lm).parts[last].layer, states.append), suppress(Enough):
        restart(lm, replace(run, handler=stop_at_last))
    return restart(lm, Restart(last, run.ids.gather(1, rows), rows_of(states[0], rows), handler=lambda _: taken[0]))


def next_inputs(lm: LanguageModel, run: Restart) -> Tensor:
    """What enters the layer after the first one of a restarted run [unit position d_model]; counts as one forward.

    The run must start below the last layer; nothing above its first layer runs.
    """
    states: list[Tensor] = []

    def stop(entering: Tensor) -> None:
        states.append(entering)
        raise Enough

    with _entering(require_structure(lm).parts[run.layer + 1].layer, stop), suppress(Enough):
        restart(lm, run)
    return states[0]


def rows_of(states: Tensor, rows: Tensor) -> Tensor:
    """[unit position width] at rows [unit read]: [unit read width]."""
    return states.gather(1, rows[:, :, None].expand(-1, -1, states.shape[-1]))


class Enough(Exception):
    """Ends a forward early: what was wanted of it is there."""


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
        for layer, write in run.writes.items():
            above = structure.parts[layer]
            stack.enter_context(replaced_forward(above.attention, _giving(returned(write, above.attention_returns))))
        for layer, write in run.mlps.items():
            module = structure.parts[layer].mlp_write
            if module is not None:
                stack.enter_context(replaced_forward(module, _shaped_like_its_input(write)))
        yield


def _giving(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _shaped_like_its_input(write: Tensor) -> Callable[..., Tensor]:
    return lambda states, *_, **__: write.reshape(*states.shape[:-1], write.shape[-1])  # OPT flattens its prompts
