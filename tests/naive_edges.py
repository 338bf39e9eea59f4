"""Edges by the book: one full forward with what single slots read changed, norms and modules found by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.circuits import Circuit
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.readouts import Readout
from tests import references

# model_type -> norm before attention, norm after it, what the MLP reads through, norm after the MLP, MLP, parallel
NAMES: dict[str, tuple[str | None, str | None, str, str, bool]] = {
    "gpt2": ("ln_1", None, "ln_2", "mlp", False),
    "llama": ("input_layernorm", None, "post_attention_layernorm", "mlp", False),
    "qwen3": ("input_layernorm", None, "post_attention_layernorm", "mlp", False),
    "gpt_neox": ("input_layernorm", None, "post_attention_layernorm", "mlp", True),
    "gemma2": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", False
    ),
    "olmo2": (None, "post_attention_layernorm", "mlp", "post_feedforward_layernorm", False),
}  # fmt: skip

Added = Mapping[str, Tensor]  # by the name of a slot, what is added to what it reads


@dataclass
class Activations:
    """What a plain run wrote: stream [item position d_model]; by layer z, the attention's output, the MLP's write."""

    stream: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    mlps: list[Tensor] = field(default_factory=list)


class NaiveEdges:
    """A model whose parts are known by name, its clean and its corrupt prompts."""

    def __init__(self, lm: LanguageModel, clean: Batch, corrupt: Batch, readout: Readout) -> None:
        self.lm, self.clean, self.readout = lm, clean, readout
        self.before, self.after, self.reads, self.writes, self.is_parallel = NAMES[lm.name]
        inner = lm.hf.base_model
        self.layers: nn.ModuleList = inner.h if hasattr(inner, "h") else inner.layers
        names = ("ln_f", "norm", "final_layer_norm")
        self.final_norm = next(getattr(inner, name) for name in names if hasattr(inner, name))
        self.base, self.other = self.activations(clean), self.activations(corrupt)

    def activations(self, batch: Batch) -> Activations:
        """A plain run."""
        found = Activations(z=references.all_z(self.lm, batch))
        with ExitStack() as stack:
            for layer, attention in zip(self.layers, self.lm.attention_modules, strict=True):
                stack.callback(layer.register_forward_hook(lambda _, args, __: found.stream.append(args[0])).remove)
                stack.callback(attention.register_forward_hook(_keep(found.outputs)).remove)
                stack.callback(getattr(layer, self.writes).register_forward_hook(_keep(found.mlps)).remove)
            references.stock_logits(self.lm, batch)
        return found

    def change(self, source: str, share: Tensor | float = 1.0) -> Tensor:
        """What a source adds to the stream with `share` of its corrupt change, minus what it adds without."""
        return self.replacing([source], self.base, self.other, share)

    def replacing(
        self, sources: Sequence[str], now: Activations, then: Activations, share: Tensor | float = 1.0
    ) -> Tensor:
        """What is added to the stream when sources write as `then`, minus what is added `now`: [item position d_model].

        The heads of a layer go through the norm after them together.
        """
        found = torch.zeros_like(self.base.stream[0])
        for source in sources:
            if source == "input":
                found = found + share * (then.stream[0] - now.stream[0])
            elif source.startswith("m"):
                found = found + share * (then.mlps[int(source[1:])] - now.mlps[int(source[1:])])
        for layer in range(self.lm.n_layers):
            heads = [int(each.split("h")[1]) for each in sources if each.startswith(f"a{layer}.")]
            if heads:
                weight = references.projections(self.lm)[layer].weight
                matrix = (weight if self.lm.name == "gpt2" else weight.T).unflatten(0, (self.lm.n_heads, -1))
                changed = share * (then.z[layer] - now.z[layer])[:, :, heads]
                found = found + self._after_heads(
                    layer, now.outputs[layer], torch.einsum("iphw,hwd->ipd", changed, matrix[heads])
                )
        return found

    def _after_heads(self, layer: int, output: Tensor, change: Tensor) -> Tensor:
        if self.after is None:
            return change
        norm = getattr(self.layers[layer], self.after)
        return norm(output + change) - norm(output)

    def readout_of(self, circuit: Circuit, ablated: Activations) -> Tensor:
        """The readout when every edge outside a circuit carries what its source writes in `ablated`: [item].

        What is added depends on what is written, so the run is repeated until everything downstream has followed.
        """
        graph, added = circuit.graph, {}
        for _ in range(2 * self.lm.n_layers + 1):
            with self._changed(added):
                now = self.activations(self.clean)
            left_out = graph.legal & ~circuit.edges
            added = {
                slot: self.replacing([graph.sources[each] for each in left_out[:, place].nonzero()[:, 0]], now, ablated)
                for place, slot in enumerate(graph.slots)
            }
        return self.readout_with(added)

    def readout_with(self, added: Added) -> Tensor:
        """The readout of the clean prompts with something added to what slots read: [item]."""
        with self._changed(added):
            return references.read(self.readout, references.stock_logits(self.lm, self.clean), self.clean)

    @contextmanager
    def _changed(self, added: Added) -> Iterator[None]:
        with ExitStack() as stack:
            options: dict[int, dict[str, Any]] = {}
            streams: dict[int, Tensor] = {}
            for index, layer in enumerate(self.layers):
                stack.callback(layer.register_forward_pre_hook(_note_stream(streams, index)).remove)
                attention = self.lm.attention_modules[index]
                hook = attention.register_forward_pre_hook(_note_options(options, index), with_kwargs=True)
                stack.callback(hook.remove)
                if f"m{index}" in added:
                    module = getattr(layer, self.reads)
                    stack.callback(module.register_forward_pre_hook(_adding(added[f"m{index}"])).remove)
            if "logits" in added:
                stack.callback(self.final_norm.register_forward_pre_hook(_adding(added["logits"])).remove)

            def attend(call: AttentionCall) -> Tensor:
                n_shared = call.query.shape[1] // call.key.shape[1]
                key, value = (states.repeat_interleave(n_shared, dim=1) for states in (call.key, call.value))
                parts = {"q": call.query.clone(), "k": key, "v": value}
                for slot, states in added.items():
                    if slot.startswith(f"a{call.layer}."):
                        part, head = slot[-2], int(slot.split("h")[1].split("<")[0])
                        other = self._call(call.layer, streams[call.layer] + states, options[call.layer])
                        theirs = {"q": other.query, "k": other.key, "v": other.value}[part]
                        parts[part][:, head] = theirs[:, head if part == "q" else head // n_shared]
                changed = replace(call, query=parts["q"], key=parts["k"], value=parts["v"])
                lengths = torch.full((len(key),), key.shape[2])
                return changed.inputs(lengths).attend(parts["v"])

            stack.enter_context(handled(self.lm.attention_modules, attend))
            yield

    def _call(self, layer: int, stream: Tensor, options: dict[str, Any]) -> AttentionCall:
        """The attention call of a layer when the stream before its norm is another."""
        found: list[AttentionCall] = []

        def take(call: AttentionCall) -> Tensor:
            found.append(call)
            raise _Taken

        given = stream if self.before is None else getattr(self.layers[layer], self.before)(stream)
        attention = self.lm.attention_modules[layer]
        with handled([attention], take), suppress(_Taken):
            attention.forward(given, **options)  # type: ignore[operator]
        return found[0]


class _Taken(Exception):
    pass


def _keep(states: list[Tensor]) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    return hook


def _note_stream(streams: dict[int, Tensor], layer: int) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        streams[layer] = args[0]

    return hook


def _note_options(found: dict[int, dict[str, Any]], layer: int) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, options: dict[str, Any]) -> None:
        found[layer] = {name: value for name, value in options.items() if name != "hidden_states"}

    return hook


def _adding(states: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    return lambda _, args: (args[0] + states, *args[1:])
