"""Parts of one layer run alone, on any residual stream: its attention inputs, its MLP, and what reads the last."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from mneme.capturing import require_structure
from mneme.cut_forward import post_norm
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.readouts import Readout, ReadRows, read_hidden
from mneme.restart import Baseline, Enough, Restart, replaced_forward, restart, rows_of
from mneme.structure import first_of, returned


def attention_call(
    lm: LanguageModel, layer: int, ids: Tensor, states: Tensor, given: Mapping[nn.Module, Tensor] | None = None
) -> AttentionCall:
    """What enters the attention of a layer when the residual stream before its norm is `states`.

    Shape: ids [unit position], states [unit position d_model]. given: outputs of modules that are not run. Counts as
    one forward, though no more is run.
    """
    found: list[AttentionCall] = []

    def take(call: AttentionCall) -> Tensor:
        found.append(call)
        raise Enough

    with ExitStack() as stack:
        stack.enter_context(suppress(Enough))
        for module, output in (given or {}).items():
            stack.enter_context(replaced_forward(module, _giving(output)))
        restart(lm, Restart(layer, ids, states, handler=take))
    return found[0]


def mlp_write(lm: LanguageModel, layer: int, ids: Tensor, states: Tensor) -> Tensor:
    """What the MLP of a layer adds to the stream when the residual stream before its norm is `states`.

    The layer runs with heads that write nothing, so that its MLP reads `states`, be it sequential or parallel.
    Shape: ids [unit position], states [unit position d_model] -> the same. Counts as one forward.
    """
    part = require_structure(lm).parts[layer]
    norm = post_norm(lm, part)
    found: list[Tensor] = []

    def take(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        found.append(first_of(output).reshape(states.shape) * part.write_scale)
        raise Enough

    nothing = torch.zeros_like(states)
    with ExitStack() as stack:
        stack.enter_context(suppress(Enough))
        assert part.mlp_write is not None  # noqa: S101  post_norm refuses
        stack.callback(part.mlp_write.register_forward_hook(take).remove)
        if norm is not None:
            stack.enter_context(replaced_forward(norm, lambda _: nothing))
        restart(lm, Restart(layer, ids, states, writes={layer: nothing}))
    return found[0]


def heads_write(lm: LanguageModel, layer: int, output: Tensor) -> Tensor:
    """What the heads of a layer add to the stream, of the attention module's output [... d_model]."""
    part = require_structure(lm).parts[layer]
    norm = post_norm(lm, part)
    return part.write_scale * (output if norm is None else norm(output))


def read_stream(
    lm: LanguageModel, ids: Tensor, stream: Tensor, readout: Readout, items: Tensor, where: ReadRows
) -> Tensor:
    """The readout of what leaves the last layer [unit position d_model], of prompts `items`: [unit]; differentiable."""
    rows = where.positions[items]
    states = rows_of(stream, rows)
    with ExitStack() as stack:
        for part in require_structure(lm).parts:
            stack.enter_context(replaced_forward(part.layer, _giving(returned(states, part.layer_returns))))
        hidden = lm.backbone.hidden(ids.gather(1, rows))
    return read_hidden(lm, readout, hidden, items, where)


def leaving(lm: LanguageModel, baseline: Baseline, layer: int) -> Tensor:
    """What left a layer in a baseline that kept its MLPs: [item position d_model]."""
    if layer < lm.n_layers - 1:
        return baseline.inputs[layer + 1]
    scale = require_structure(lm).parts[layer].write_scale
    return baseline.inputs[layer] + heads_write(lm, layer, baseline.writes[layer]) + scale * baseline.mlps[layer]


def _giving(value: Any) -> Any:
    return lambda *_, **__: value
