"""Copying scores of the OV circuit: whether a head, when it attends to a token, raises that token's own logit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mneme.capturing import head_weights, require_structure
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.restart import Enough, Restart, restart
from mneme.structure import LayerParts
from mneme.unembedding import widened

SMALLEST = 1e-8  # sum of |eigenvalues| below which a score means nothing


@dataclass(frozen=True)
class CopyingScores:
    """Copying of each head, from the weights alone.

    Shape: eigenvalue [layer head], Re(sum)/sum|.| of the eigenvalues of the OV circuit, -1 .. 1, NaN where they vanish;
    top5 [layer head], share of probe tokens that are among the 5 tokens that the head raises most when it attends to
    them, 0 .. 1; z [layer head], by how many standard deviations their own logit stands out, mean over probe tokens.
    """

    eigenvalue: Tensor
    top5: Tensor
    z: Tensor


@torch.no_grad()
def copying_scores(lm: LanguageModel, tokens: Tensor) -> CopyingScores:
    """Copying scores of all heads, on `tokens` [token] int64 as probes.

    The values of a token are what the layer makes of its embedding alone, biases left out; the unembedding takes the
    final norm's gain and is centred over the vocabulary. Eigenvalues are those of the small matrix of a head.
    Source: METHODS 1b; Elhage et al. 2021; Wang et al. 2022.
    Raises: NotApplicable where the layers, the final norm or the unembedding are not found, or values are not linear.
    """
    structure = require_structure(lm)
    head, norm = lm.hf.get_output_embeddings(), structure.final_norm
    if norm is None or type(head) is not nn.Linear:
        raise NotApplicable(f"{lm.name}: its final norm or its unembedding was not found")
    unembed = _gained(widened(head.weight), norm)
    unembed = (unembed - unembed.mean(dim=0)).double()
    embedding = widened(lm.hf.get_input_embeddings().weight).double()
    found = [_layer_scores(lm, layer, embedding, unembed, tokens) for layer in range(lm.n_layers)]
    return CopyingScores(*(torch.stack(column).float() for column in zip(*found, strict=True)))


def _layer_scores(
    lm: LanguageModel, layer: int, embedding: Tensor, unembed: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of one layer's heads: three of [head]."""
    part = require_structure(lm).parts[layer]
    values = _value_weights(lm, layer, part).double()  # [head width_of_model width]
    writes = widened(head_weights(lm, part)).double()
    eigenvalue, top5, z = [], [], []
    for head in range(lm.n_heads):
        small = (writes[head] @ unembed.T) @ (embedding @ values[head])
        spectrum = torch.linalg.eigvals(small)
        size = float(spectrum.abs().sum())
        eigenvalue.append(float(spectrum.real.sum()) / size if size >= SMALLEST else float("nan"))
        raised = embedding[tokens] @ values[head] @ writes[head] @ unembed.T
        own = raised.gather(1, tokens[:, None])
        top5.append(float(((raised > own).sum(dim=1) < 5).double().mean()))
        z.append(float(((own[:, 0] - raised.mean(dim=1)) / raised.std(dim=1)).mean()))
    return torch.tensor(eigenvalue), torch.tensor(top5), torch.tensor(z)


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
    """Values of hidden states [n d_model] that enter a layer, each a prompt of one token: [kv_head n width]."""
    found: list[Tensor] = []

    def take(call: AttentionCall) -> Tensor:
        found.append(call.value[:, :, 0].transpose(0, 1))
        raise Enough

    ids = torch.zeros(len(states), 1, dtype=torch.int64, device=states.device)
    with suppress(Enough):
        restart(lm, Restart(layer, ids, states[:, None], handler=take))
    return widened(found[0])


def _gained(unembed: Tensor, norm: nn.Module) -> Tensor:
    """The unembedding [vocab d_model] with the final norm's gain folded in, up to one factor."""
    signs = torch.ones(1, unembed.shape[1], dtype=unembed.dtype, device=unembed.device)
    signs[:, 1::2] = -1
    bias = getattr(norm, "bias", None)
    answer = widened(norm(signs.to(next(norm.parameters(), signs).dtype)))
    return unembed * (answer - (0.0 if bias is None else bias)) * signs
