"""The OV circuit of each head in token space: what attending to a token writes, read off the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture, head_weights, require_structure
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.restart import Enough, Restart, restart
from mneme.structure import LayerParts, first_of
from mneme.unembedding import widened

Embedding = Literal["plain", "effective"]
_COMPARED = 16  # tokens whose embeddings are compared with what enters layer 0


@dataclass(frozen=True)
class TokenSpace:
    """Both ends of a circuit: embedding, unembed [vocab d_model] float64, each up to one factor.

    unembed has the final norm's gain folded in and is centred over the vocabulary: what raises all logits alike, such
    as the direction of frequent tokens, is no copying.
    """

    embedding: Tensor
    unembed: Tensor

    @cached_property
    def across(self) -> Tensor:
        """W_U E [d_model d_model]: from what is written to the unembedding back to what is read of an embedding."""
        return self.unembed.T @ self.embedding

    def with_other_targets(self, seed: int) -> TokenSpace:
        """The same with each token's unembedding replaced by that of a random other one: a null for copying."""
        order = torch.randperm(len(self.unembed), generator=torch.Generator().manual_seed(seed))
        other = torch.empty_like(order)
        other[order] = order.roll(1)  # one cycle through all tokens: none stays in its place
        return replace(self, unembed=self.unembed[other.to(self.unembed.device)])


@dataclass(frozen=True)
class HeadCircuit:
    """One head in token space: logits [vocab vocab] = embedding @ values @ writes @ unembed.T.

    Shape: values [d_model width], writes [width d_model] float64.
    """

    space: TokenSpace
    values: Tensor
    writes: Tensor

    def with_random_weights(self, generator: torch.Generator) -> HeadCircuit:
        """The same with Gaussian directions and the singular values of values @ writes: a null for its directions."""
        _, above = torch.linalg.qr(self.values)
        _, below = torch.linalg.qr(self.writes.T)
        size = torch.linalg.svdvals(above @ below.T)
        left, right = (
            torch.linalg.qr(torch.randn(self.values.shape, generator=generator, dtype=torch.float64).to(size.device))[0]
            for _ in range(2)
        )
        return replace(self, values=left[:, : len(size)] * size, writes=right[:, : len(size)].T)


@torch.no_grad()
def token_space(lm: LanguageModel, embedding: Embedding = "plain") -> TokenSpace:
    """Embedding and unembedding of a model; "effective" embeddings have the first MLP's answer to them added.

    Source: METHODS 1b (E' = E + MLP0(E); the attention of layer 0 writes nothing meanwhile, positions are left out).
    Raises: NotApplicable where the layers, the final norm or the unembedding are not found, or embeddings enter layer
    0 other than up to one factor.
    """
    structure = require_structure(lm)
    head, norm = lm.hf.get_output_embeddings(), structure.final_norm
    if norm is None or type(head) is not nn.Linear:
        raise NotApplicable(f"{lm.name}: its final norm or its unembedding was not found")
    unembed = exact(_gained(widened(head.weight), norm))
    states = torch.as_tensor(lm.hf.get_input_embeddings().weight) * _embedding_scale(lm)
    if embedding == "effective":
        states = _after_first_mlp(lm, states)
    return TokenSpace(exact(states), unembed - unembed.mean(dim=0))


@torch.no_grad()
def head_circuits(lm: LanguageModel, space: TokenSpace, progress: Progress = silent) -> Iterator[HeadCircuit]:
    """The circuit of every head, layer by layer.

    The values of a token are what the layer makes of its embedding alone, biases left out. Raises: NotApplicable where
    the layers are not found, what heads write is normed, or values are not linear in the normed residual.
    """
    for layer, part in enumerate(require_structure(lm).parts):
        values, writes = exact(_value_weights(lm, layer, part)), exact(head_weights(lm, part))
        yield from (HeadCircuit(space, *pair) for pair in zip(values, writes, strict=True))
        progress(layer + 1, lm.n_layers)


def exact(weights: Tensor) -> Tensor:
    """In float64; on the CPU where the device knows no float64."""
    return (weights.cpu() if weights.device.type == "mps" else weights).double()


def _embedding_scale(lm: LanguageModel) -> float:
    """The factor between the embeddings and what enters layer 0, whatever the model adds for the position."""
    ids = torch.linspace(0, lm.vocab_size - 1, min(_COMPARED, lm.vocab_size)).long()
    entering = widened(capture(lm, Batch.of(ids[:, None]), ["residual"])["residual"][:, 0, 0])
    stored = widened(lm.hf.get_input_embeddings().weight[ids.to(lm.device)])
    given = stored - stored.mean(dim=0)
    found = entering - entering.mean(dim=0)
    if found.shape == given.shape:
        scale = float((found * given).sum() / (given * given).sum())
        if float((found - scale * given).abs().max()) <= 2e-2 * float(found.abs().max()):
            return scale
    raise NotApplicable(f"{lm.name} does more than scale its embeddings before layer 0, so they give no circuits")


def _after_first_mlp(lm: LanguageModel, states: Tensor) -> Tensor:
    """Embeddings [vocab d_model] and what the first layer's MLP adds to them, its attention writing nothing."""
    layer = require_structure(lm).parts[0].layer

    def run(some: slice) -> Tensor:
        given, found = states[some, None].to(lm.dtype), []

        def take(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            found.append(first_of(output).reshape(given.shape)[:, 0])
            raise Enough

        hook = layer.register_forward_hook(take)
        ids = torch.zeros(given.shape[:2], dtype=torch.int64, device=given.device)
        try:
            with suppress(Enough):
                restart(lm, Restart(0, ids, given, {0: torch.zeros_like(given)}))
        finally:
            hook.remove()
        return widened(torch.cat(found))

    return in_batches(lm, len(states), 1, run)


def _value_weights(lm: LanguageModel, layer: int, part: LayerParts) -> Tensor:
    """W_V of each query head with the layer's input norm's gain folded in, up to one factor: [head d_model width].

    Read off the running layer: it is fed vectors along each axis, all of one length, so that a norm only scales them.
    Biases cancel between a vector and its opposite.
    """
    if part.attention_write not in (part.attention, part.projection.module if part.projection else None):
        raise NotApplicable(f"{lm.name} norms what its heads write, so their circuits have no fixed weights")
    basis = torch.eye(lm.d_model, dtype=lm.dtype, device=lm.device) * 10 * lm.d_model**0.5  # drowns the norm's epsilon
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(1, lm.d_model, generator=generator).to(basis)
    mixture = mixture - mixture.mean()
    both = [_values_of(lm, layer, sign * torch.cat([basis, mixture])) for sign in (1, -1)]
    values = (both[0] - both[1]) / 2
    expected, found = (mixture @ values[:, :-1]).flatten(), values[:, -1].flatten()
    if float(torch.cosine_similarity(expected, found, dim=0)) < 1 - 1e-3:
        raise NotApplicable(f"{lm.name}: its values are not linear in the normed residual, so there is no OV matrix")
    return values[:, :-1].repeat_interleave(lm.n_heads // lm.n_kv_heads, dim=0)


def _values_of(lm: LanguageModel, layer: int, states: Tensor) -> Tensor:
    """Values of hidden states [n d_model] that enter a layer: [kv_head n width]."""
    return widened(call_of_states(lm, layer, states).value[:, :, 0].transpose(0, 1))


def call_of_states(lm: LanguageModel, layer: int, states: Tensor) -> AttentionCall:
    """The attention call of a layer that hidden states [n d_model] enter, each a prompt of one token at position 0."""
    found: list[AttentionCall] = []

    def take(call: AttentionCall) -> Tensor:
        found.append(call)
        raise Enough

    ids = torch.zeros(len(states), 1, dtype=torch.int64, device=states.device)
    with suppress(Enough):
        restart(lm, Restart(layer, ids, states[:, None], handler=take))
    return found[0]


def _gained(unembed: Tensor, norm: nn.Module) -> Tensor:
    """The unembedding [vocab d_model] with the final norm's gain folded in, up to one factor."""
    signs = torch.ones(1, unembed.shape[1], dtype=unembed.dtype, device=unembed.device)
    signs[:, 1::2] = -1
    bias = getattr(norm, "bias", None)
    answer = widened(norm(signs.to(next(norm.parameters(), signs).dtype)))
    return unembed * (answer - (0.0 if bias is None else bias)) * signs
