"""Captures named arrays from one forward: exactly what is asked for, and nothing is left on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.registry import near_names
from mneme.structure import LayerParts, Structure, first_of

SiteName = Literal["attention_inputs", "attention_rows", "z", "head_writes", "residual", "mlp_out", "logits"]


@dataclass(frozen=True)
class Site:
    """What to capture: a name, and of which layers, heads and positions (None = all).

    | name | array |
    |---|---|
    | attention_inputs | `AttentionInputs` of each layer, in `Trace.attention_inputs` |
    | attention_rows | [item layer head query key], of the queries in `positions` |
    | z | [item layer head position width], the input of the output projection |
    | head_writes | [item layer head position d_model], z @ W_O: what a head adds, before any norm after it |
    | residual | [item layer position d_model]; layer l is what enters layer l, n_layers is what leaves the last |
    | mlp_out | [item layer position d_model], what the MLP adds to the residual stream |
    | logits | [item position vocab] |
    """

    name: SiteName
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Trace:
    """Captured arrays by the name of their site, and attention inputs by layer."""

    arrays: dict[str, Tensor] = field(default_factory=dict)
    attention_inputs: dict[int, AttentionInputs] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """The array of a site."""
        if name not in self.arrays:
            raise BadInput(f"the trace holds no '{name}'" + near_names(name, sorted(self.arrays)))
        return self.arrays[name]


@torch.no_grad()
def capture(lm: LanguageModel, ids: Tensor | Batch, sites: Sequence[Site | SiteName]) -> Trace:
    """Run `ids` once and return what `sites` name, at most one site of each name.

    Raises: BadInput for an unknown site or an index that does not exist; NotApplicable where the model's parts are
    not found (head sites of a model outside the attention interface).
    """
    batch = lm.batch(ids)
    asked = {site.name: site for site in (Site(each) if isinstance(each, str) else each for each in sites)}
    for site in asked.values():
        _check(lm, batch, site)
    collected = _Collected(lm, batch, asked)
    with collected.listening():
        hidden = lm.backbone.hidden(batch.ids)
    return collected.trace(hidden)


@torch.no_grad()
def stream_attention(lm: LanguageModel, ids: Tensor | Batch, visit: Callable[[AttentionInputs], None]) -> Tensor:
    """Call `visit` with the attention inputs of each layer, while one forward runs; nothing is stored.

    Returns the final hidden states [item position width], which `readouts.token_scores` turns into scores.
    """
    batch = lm.batch(ids)

    def watch(call: AttentionCall) -> Tensor:
        z, normaliser = call.compute_with_normaliser()
        visit(replace(call.inputs(batch.lengths), normaliser=normaliser))
        return z

    with handled(lm.attention_modules, watch):
        return lm.backbone.hidden(batch.ids)


def require_structure(lm: LanguageModel) -> Structure:
    """The parts of the model's layers; raises NotApplicable where they were not found."""
    lm.require_attention()
    if lm.structure is None:
        raise NotApplicable(f"{lm.name}: its layers are not one list of modules, so only attention sites apply to it")
    return lm.structure


def head_weights(lm: LanguageModel, parts: LayerParts) -> Tensor:
    """W_O of each head of a layer [head width d_model]; raises NotApplicable where it was not found."""
    if parts.projection is None:
        raise NotApplicable(f"{lm.name}: the output projection of a layer was not found, so head writes do not exist")
    return parts.projection.weight(lm.n_heads)


class _Collected:
    """Hooks that fill lists by layer during one forward."""

    def __init__(self, lm: LanguageModel, batch: Batch, asked: dict[SiteName, Site]) -> None:
        self.lm = lm
        self.batch = batch
        self.asked = asked
        self.found: dict[str, dict[int, Tensor]] = {name: {} for name in asked}
        self.inputs: dict[int, AttentionInputs] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Attention handler and module hooks, gone afterwards whatever happens."""
        with ExitStack() as stack:
            if self.asked.keys() & {"attention_inputs", "attention_rows", "z", "head_writes"}:
                stack.enter_context(handled(self.lm.attention_modules, self.attention))
            for hook in self._module_hooks():
                stack.callback(hook.remove)
            yield

    def attention(self, call: AttentionCall) -> Tensor:
        """Attention handler."""
        z, normaliser = call.compute_with_normaliser()
        inputs = replace(call.inputs(self.batch.lengths), normaliser=normaliser)
        if self._wants("attention_inputs", call.layer):
            self.inputs[call.layer] = inputs
        if self._wants("attention_rows", call.layer):
            site = self.asked["attention_rows"]
            queries = range(inputs.n_queries) if site.positions is None else site.positions
            self.found["attention_rows"][call.layer] = inputs.rows(list(queries), site.heads)
        if self._wants("z", call.layer):
            self.found["z"][call.layer] = self._cut("z", z).transpose(1, 2)
        if self._wants("head_writes", call.layer):
            weights = head_weights(self.lm, require_structure(self.lm).parts[call.layer])
            site = self.asked["head_writes"]
            chosen = weights if site.heads is None else weights[list(site.heads)]
            writes = torch.einsum("bthw,hwd->bhtd", self._cut("head_writes", z), chosen)
            self.found["head_writes"][call.layer] = writes
        return z

    def trace(self, hidden: Tensor) -> Trace:
        """What was found, stacked over layers."""
        arrays = {
            name: torch.stack([by[layer] for layer in sorted(by)], dim=1) for name, by in self.found.items() if by
        }
        if "logits" in self.asked:
            rows = self._at("logits", hidden)
            arrays["logits"] = self.lm.backbone.unembed(rows.flatten(0, 1)).reshape(*rows.shape[:2], -1)
        return Trace(arrays, self.inputs)

    def _module_hooks(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        if not self.asked.keys() & {"residual", "mlp_out"}:
            return
        parts = require_structure(self.lm).parts
        for layer, part in enumerate(parts):
            if self._wants("residual", layer):
                yield part.layer.register_forward_pre_hook(self._pre_hook(layer), with_kwargs=True)
            if self._wants("mlp_out", layer):
                yield _mlp_of(self.lm, part).register_forward_hook(self._mlp_hook(layer, part.write_scale))
        if self._wants("residual", len(parts)):
            yield parts[-1].layer.register_forward_hook(self._last_hook(len(parts)))

    def _pre_hook(self, layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self.found["residual"][layer] = self._at("residual", args[0] if args else options["hidden_states"])

        return hook

    def _last_hook(self, layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self.found["residual"][layer] = self._at("residual", first_of(output))

        return hook

    def _mlp_hook(self, layer: int, scale: float) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            write = first_of(output).reshape(*self.batch.ids.shape, -1)
            self.found["mlp_out"][layer] = self._at("mlp_out", write) * scale

        return hook

    def _wants(self, name: SiteName, layer: int) -> bool:
        site = self.asked.get(name)
        return site is not None and (site.layers is None or layer in site.layers)

    def _at(self, name: SiteName, array: Tensor) -> Tensor:
        """[item position ...] at the positions of a site."""
        positions = self.asked[name].positions
        return array if positions is None else array[:, list(positions)]

    def _cut(self, name: SiteName, z: Tensor) -> Tensor:
        """[item position head width] at the positions and heads of a site."""
        heads = self.asked[name].heads
        return self._at(name, z if heads is None else z[:, :, list(heads)])


def _mlp_of(lm: LanguageModel, part: LayerParts) -> nn.Module:
    if part.mlp_write is None:
        raise NotApplicable(f"{lm.name}: what the MLP adds to the residual stream was not found")
    return part.mlp_write


def _check(lm: LanguageModel, batch: Batch, site: Site) -> None:
    if site.name not in get_args(SiteName):
        raise BadInput(f"unknown site '{site.name}'" + near_names(site.name, list(get_args(SiteName))))
    n_layers = lm.n_layers + (site.name == "residual")
    limits = [("layer", site.layers, n_layers), ("position", site.positions, batch.ids.shape[1])]
    if site.heads is not None:
        limits.append(("head", site.heads, lm.n_heads))
    for what, chosen, size in limits:
        for each in chosen or ():
            if not 0 <= each < size:
                raise BadInput(f"site {site.name}: {what} {each} does not exist, it must lie in 0..{size - 1}")
