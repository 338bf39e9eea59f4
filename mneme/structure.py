"""Where the parts of a layer lie, found from the running model: no adapter, no name of an architecture."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from mneme.interception import AttentionCall, handled
from mneme.packing import Piece, run_packed
from mneme.unembedding import Backbone

TOLERANCE = 1e-5  # of the largest value: which tensors count as the same


@dataclass(frozen=True)
class Projection:
    """The output projection of a layer: attention module output = sum over heads of z_h @ weight_h, + bias."""

    module: nn.Module
    is_transposed: bool

    def weight(self, n_heads: int) -> Tensor:
        """W_O of each head: [head width d_model]."""
        weight = torch.as_tensor(self.module.weight)
        matrix = weight.T if self.is_transposed else weight
        return matrix.reshape(n_heads, -1, matrix.shape[1])

    @property
    def bias(self) -> Tensor | None:
        """The part of the output that belongs to no head: [d_model]."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else torch.as_tensor(bias)


@dataclass(frozen=True)
class LayerParts:
    """Parts of one layer; None where the running model did not show them.

    layer output = layer input + write_scale * (output of attention_write + output of mlp_write).
    projection: only when its output is the attention module's output. layer_returns, attention_returns: how many
    values the module returns as a tuple, hidden states first; None = the hidden states alone.
    """

    layer: nn.Module
    attention: nn.Module
    projection: Projection | None
    attention_write: nn.Module | None
    mlp_write: nn.Module | None
    write_scale: float
    layer_returns: int | None
    attention_returns: int | None


@dataclass(frozen=True)
class Structure:
    """The layers of a model in order, and the final norm (None when the last layer's output is not normed).

    has_plain_cache: whether a forward may go on from the keys and values that entered attention: the cache holds them
    (latent attention's does not), and nothing but attention looks back.
    runs_packed: whether a prompt behind another one in the same row, with positions of its own and attention to itself
    alone, gives what it gives alone; not so where a model takes no positions, mixes tokens outside its attention, or
    has masks that its attention calls do not state (chunks of the text, windows that are not named).
    """

    parts: tuple[LayerParts, ...]
    final_norm: nn.Module | None
    has_plain_cache: bool
    runs_packed: bool


@dataclass
class _Record:
    """Inputs and outputs of the modules of one forward, in the order in which they finished."""

    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    z: dict[int, Tensor] = field(default_factory=dict)
    keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    returns: dict[nn.Module, int | None] = field(default_factory=dict)
    repeated: set[nn.Module] = field(default_factory=set)

    def hook(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        """Forward hook: note the first tensor that goes in and the first that comes out."""
        given = args[0] if args else options.get("hidden_states")
        result = first_of(output)
        if isinstance(given, Tensor) and isinstance(result, Tensor):
            if module in self.outputs:
                self.repeated.add(module)
            self.inputs[module], self.outputs[module] = given, result
            self.returns[module] = len(output) if isinstance(output, tuple) else None

    def attention(self, call: AttentionCall) -> Tensor:
        """Attention handler: note Z, keys and values."""
        self.keys[call.layer] = call.key, call.value
        self.windows[call.layer] = call.window
        self.z[call.layer] = call.compute()
        return self.z[call.layer]


def first_of(output: Any) -> Any:
    """The hidden states in what a module returns: the output itself, or the first of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def returned(hidden: Tensor, n_values: int | None) -> Any:
    """Hidden states in the form in which a module returns them (see `LayerParts`)."""
    return hidden if n_values is None else (hidden, *[None] * (n_values - 1))


@torch.no_grad()
def find_structure(hf: PreTrainedModel, backbone: Backbone, attention: dict[int, nn.Module]) -> Structure | None:
    """Run eight tokens and compare what went in and out; None when the layers are not one list of modules."""
    layers = _layer_list(backbone.module, attention)
    if layers is None:
        return None
    record = _Record()
    hooks = [module.register_forward_hook(record.hook, with_kwargs=True) for module in backbone.module.modules()]
    ids = torch.arange(8, device=hf.device)[None] % hf.config.get_text_config().vocab_size
    cache = DynamicCache()
    try:
        with handled(list(attention.values()), record.attention):
            hidden = backbone.hidden(ids, past_key_values=cache, use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    parts = tuple(_layer_parts(layers[each], attention[each], record.z[each], record) for each in range(len(layers)))
    runs_packed = _states_its_masks(hf.config.get_text_config(), record.windows) and _runs_packed(
        backbone, [attention[each] for each in range(len(layers))], ids[0], hidden[0]
    )
    has_plain_cache = _is_plain(cache, record) and _goes_on(backbone, ids, hidden)
    return Structure(parts, _final_norm(record, layers, hidden), has_plain_cache, runs_packed)


def _goes_on(backbone: Backbone, ids: Tensor, hidden: Tensor) -> bool:
    """Whether a forward that goes on from the keys and values of half of the tokens ends as a whole one."""
    cache, half = DynamicCache(), ids.shape[1] // 2
    backbone.hidden(ids[:, :half], past_key_values=cache, use_cache=True)
    rest = backbone.hidden(ids[:, half:], past_key_values=cache, use_cache=True)
    return _same(rest, hidden[:, half:])


def _states_its_masks(config: Any, windows: dict[int, int | None]) -> bool:
    """Whether each layer sees all before it, or a window that its attention call names."""
    if getattr(config, "attention_chunk_size", None) is not None:
        return False
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        is_windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        return not is_windowed or any(window is not None for window in windows.values())
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return False
    return all(windows[layer] is not None for layer, kind in enumerate(kinds) if kind == "sliding_attention")


def _runs_packed(backbone: Backbone, attention: list[nn.Module], ids: Tensor, hidden: Tensor) -> bool:
    if "position_ids" not in inspect.signature(backbone.module.forward).parameters:
        return False
    _, second = run_packed(backbone, attention, [Piece(ids.flip(0)), Piece(ids)], lambda *_: None)
    return _same(second, hidden)


def _is_plain(cache: DynamicCache, record: _Record) -> bool:
    held = {layer: (each.keys, each.values) for layer, each in enumerate(cache.layers)}
    return held.keys() == record.keys.keys() and all(
        mine.shape == theirs.shape and torch.equal(mine, theirs)
        for layer in held
        for mine, theirs in zip(held[layer], record.keys[layer], strict=True)
    )


def _layer_list(backbone: nn.Module, attention: dict[int, nn.Module]) -> nn.ModuleList | None:
    for module in backbone.modules():
        if not isinstance(module, nn.ModuleList) or len(module) != len(attention):
            continue
        if all(attention[each] in set(layer.modules()) for each, layer in enumerate(module)):
            return module
    return None


def _layer_parts(layer: nn.Module, attention: nn.Module, z: Tensor, record: _Record) -> LayerParts:
    first, second, scale = _writes(layer, record)
    projection = _projection(attention, z, record)
    returns = record.returns[layer], record.returns[attention]
    return LayerParts(layer, attention, projection, first, second, scale, *returns)


def _projection(attention: nn.Module, z: Tensor, record: _Record) -> Projection | None:
    flat = z.flatten(2)
    for module in attention.modules():
        weight = getattr(module, "weight", None)
        if module not in record.inputs or not isinstance(weight, Tensor) or weight.ndim != 2:
            continue
        given, output = record.inputs[module], record.outputs[module]
        if given.shape != flat.shape or not torch.equal(given, flat) or not _same(output, record.outputs[attention]):
            continue
        bias = torch.zeros(()) if getattr(module, "bias", None) is None else torch.as_tensor(module.bias)
        for is_transposed in (True, False):
            matrix = weight.T if is_transposed else weight
            if matrix.shape[0] == flat.shape[-1] and _same(flat @ matrix + bias.to(flat), output):
                return Projection(module, is_transposed)
    return None


def _writes(layer: nn.Module, record: _Record) -> tuple[nn.Module | None, nn.Module | None, float]:
    """The two modules whose scaled outputs the layer adds to its input, in the order in which they ran."""
    change = record.outputs[layer] - record.inputs[layer]
    within = set(layer.modules()) - {layer} - record.repeated
    outputs = {
        module: output.reshape(change.shape)
        for module, output in record.outputs.items()
        if module in within and output.numel() == change.numel() and output.shape[-1] == change.shape[-1]
    }
    for is_scaled in (False, True):  # plain sums first: where one part writes 0, the other twice, halved, fits as well
        for first, second in combinations(outputs, 2):
            total = outputs[first] + outputs[second]
            scale = float((total * change).sum() / (total * total).sum().clamp_min(1e-30)) if is_scaled else 1.0
            if _same(scale * total, change):
                return first, second, scale
    return None, None, 1.0


def _final_norm(record: _Record, layers: nn.ModuleList, hidden: Tensor) -> nn.Module | None:
    last = record.outputs[layers[-1]]
    for module, output in record.outputs.items():
        is_last_layer = module is layers[-1] or record.inputs[module] is not last
        if output.shape == hidden.shape and torch.equal(output, hidden) and not is_last_layer:
            return module
    return None


def _same(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    tolerance = TOLERANCE if theirs.dtype in (torch.float32, torch.float64) else 2e-2
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
