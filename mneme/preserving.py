"""Copy-suppression-preserving ablation: what is left of a head when it may only lower what is predicted already."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mneme.ablation import mean_z
from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture, head_weights, require_structure
from mneme.errors import NotApplicable
from mneme.head_circuits import Embedding, head_circuits, token_space
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.suppression import written_logits
from mneme.unembedding import CHUNK_ELEMENTS, row_chunks, widened


@dataclass(frozen=True)
class Preserved:
    """What the ablation keeps of a head's output beyond its mean.

    n_targets: the targets of a source token are so many tokens, those that the head lowers most when attending to it.
    is_projected: of what a source writes, only the part in the span of its targets' unembeddings is kept; else all.
    n_sources: how many sources each position keeps, those whose targets it predicts most; None = all, 0 = only the mean
    is left. is_random: targets are random tokens. embedding: of the source tokens. seed: of random targets.
    """

    n_targets: int = 5
    n_sources: int | None = 10
    is_projected: bool = True
    is_random: bool = False
    embedding: Embedding = "effective"
    seed: int = 0


@dataclass(frozen=True)
class Divergences:
    """KL(model || model with a head changed), mean over the positions of a prompt: [item layer head] nats.

    ablated: the head's output is its mean; preserved: only what `Preserved` keeps is added to that.
    """

    ablated: Tensor
    preserved: Tensor


@torch.no_grad()
def divergences(lm: LanguageModel, batch: Batch, kept: Preserved, progress: Progress = silent) -> Divergences:
    """Both divergences of every head, by the direct effect alone: what changes is added to the last residual.

    The mean is taken per position over the prompts. Source: METHODS 8b; McDougall et al. 2023. Raises: NotApplicable as
    `token_space` and `head_circuits`.
    """
    batch = lm.batch(batch)
    targets = _Targets(lm, batch, kept)
    means = mean_z(lm, batch)
    n_tokens = batch.ids.shape[1]
    at_most = max(1, CHUNK_ELEMENTS // (n_tokens * max(lm.vocab_size, n_tokens * kept.n_targets)))

    def run(items: slice) -> Tensor:
        return _Prompts(lm, batch.select(items), targets, means, kept).divergences()

    found = in_batches(lm, len(batch), n_tokens, run, progress, at_most=at_most)
    return Divergences(*found.float().cpu().unbind(dim=-1))


class _Targets:
    """For every head and every token of the prompts: the tokens whose logits the head lowers most, attending to it."""

    def __init__(self, lm: LanguageModel, batch: Batch, kept: Preserved) -> None:
        space = token_space(lm, kept.embedding)
        present = torch.unique(batch.ids[batch.padding.bool()])
        self.row_of = torch.zeros(lm.vocab_size, dtype=torch.int64, device=present.device)
        self.row_of[present] = torch.arange(len(present), device=present.device)
        n_targets = min(kept.n_targets, lm.vocab_size)
        if kept.is_random:
            generator = torch.Generator().manual_seed(kept.seed)
            drawn = [torch.randperm(lm.vocab_size, generator=generator)[:n_targets] for _ in present]
            every = torch.stack(drawn)[None].expand(lm.n_layers * lm.n_heads, -1, -1)
        else:
            parts = []
            for circuit in head_circuits(lm, space):
                chunks = row_chunks(len(present), lm.vocab_size)
                lowest = [
                    written_logits(circuit, present[some]).topk(n_targets, largest=False).indices for some in chunks
                ]
                parts.append(torch.cat(lowest))
            every = torch.stack(parts)
        self.of_heads = every.reshape(lm.n_layers, lm.n_heads, len(present), n_targets).to(batch.ids.device)
        self.directions = _directions(lm, space.unembed.to(batch.ids.device))

    def at(self, layer: int, head: int, ids: Tensor) -> Tensor:
        """Targets of the tokens `ids` [item key]: [item key target] int64."""
        return self.of_heads[layer, head][self.row_of[ids]]


def _directions(lm: LanguageModel, unembed: Tensor) -> Tensor:
    """The direction of each token's logit in the residual stream, the final norm folded in: [vocab d_model]."""
    norm = require_structure(lm).final_norm
    if norm is None:
        raise NotApplicable(f"{lm.name}: its final norm was not found")
    given = torch.randn(1, lm.d_model, generator=torch.Generator().manual_seed(0)).to(lm.device, lm.dtype)
    is_centred = torch.allclose(norm(given), norm(given + 1), atol=1e-3)
    return (unembed - unembed.mean(dim=1, keepdim=True) if is_centred else unembed).to(widened(given))


class _Prompts:
    """Some prompts in one forward, and what is left of their predictions when one head at a time is changed."""

    def __init__(self, lm: LanguageModel, batch: Batch, targets: _Targets, means: Tensor, kept: Preserved) -> None:
        self.lm = lm
        self.batch = batch
        self.targets = targets
        self.means = means[:, :, : batch.ids.shape[1]]
        self.kept = kept
        self.calls: dict[int, tuple[AttentionInputs, Tensor, Tensor]] = {}
        with handled(lm.attention_modules, self._watch):
            self.residual = capture(lm, batch, ["residual"])["residual"]
        self.full = self._log_probs(self.residual[:, -1])

    def _watch(self, call: AttentionCall) -> Tensor:
        z = call.compute()
        self.calls[call.layer] = (call.inputs(self.batch.lengths), call.value, z)
        return z

    def divergences(self) -> Tensor:
        """ablated and preserved of every head: [item layer head 2] float64."""
        return torch.stack([self._of_layer(layer) for layer in range(self.lm.n_layers)], dim=1)

    def _of_layer(self, layer: int) -> Tensor:
        part = require_structure(self.lm).parts[layer]
        weights = widened(head_weights(self.lm, part)) * part.write_scale
        lens = None if self.kept.n_sources is None else self._logits(self.residual[:, layer])
        inputs, value, z = self.calls[layer]
        found = []
        for head in range(self.lm.n_heads):
            rows = inputs.rows(list(range(inputs.n_queries)), [head])[:, 0]
            group = head * value.shape[1] // self.lm.n_heads
            mean = widened(self.means[layer, head]) @ weights[head]
            targets = self.targets.at(layer, head, self.batch.ids)
            written = widened(value[:, group]) @ weights[head]
            share = (rows if lens is None else rows * self._is_source(lens, targets)).to(written)
            preserved = self._preserved(share, written, mean, targets)
            lost = mean - widened(z[:, :, head]) @ weights[head]
            found.append(torch.stack([self._divergence(lost), self._divergence(lost + preserved)], dim=-1))
        return torch.stack(found, dim=1)

    def _is_source(self, lens: Tensor, targets: Tensor) -> Tensor:
        """Whether a key is among those whose targets a query predicts most: [item query key] bool."""
        n_keys = targets.shape[1]
        chosen = targets.flatten(1)[:, None].expand(-1, n_keys, -1)
        predicted = lens.gather(2, chosen).reshape(*lens.shape[:2], *targets.shape[1:]).amax(dim=3)
        is_later = torch.ones(n_keys, n_keys, dtype=torch.bool, device=lens.device).triu(1)
        order = predicted.masked_fill(is_later, -torch.inf).argsort(dim=2, descending=True, stable=True)
        is_source = torch.zeros_like(predicted, dtype=torch.bool)
        return is_source.scatter(2, order[:, :, : self.kept.n_sources], value=True)

    def _preserved(self, share: Tensor, written: Tensor, mean: Tensor, targets: Tensor) -> Tensor:
        """What is kept of a head beyond its mean, [item query d_model]: the part of each source in its targets' span.

        Shape: share [item query key] of attention to kept sources; written [item key d_model]; mean [query d_model].
        """
        if not self.kept.is_projected:
            return share @ written - share.sum(dim=2, keepdim=True) * mean
        spans = self.targets.directions[targets]
        inverse = torch.linalg.pinv(spans @ spans.transpose(2, 3), hermitian=True)
        own = torch.einsum("bkd,bksd->bks", written, spans)
        common = torch.einsum("qd,bksd->bqks", mean, spans)
        amount = share[..., None] * (own[:, None] - common)
        return torch.einsum("bqks,bkst,bktd->bqd", amount, inverse, spans)

    def _divergence(self, change: Tensor) -> Tensor:
        """KL(full || with `change` [item position d_model] in the last residual), mean over real positions: [item]."""
        other = self._log_probs(self.residual[:, -1] + change.to(self.residual.dtype))
        inside = self.batch.padding.bool()
        kl = (self.full.exp() * (self.full - other)).sum(dim=2).masked_fill(~inside, 0.0)
        return kl.sum(dim=1) / inside.sum(dim=1)

    def _log_probs(self, residual: Tensor) -> Tensor:
        return torch.log_softmax(self._logits(residual).double(), dim=2)

    def _logits(self, residual: Tensor) -> Tensor:
        """[item position vocab]"""
        norm = require_structure(self.lm).final_norm
        assert isinstance(norm, nn.Module)  # noqa: S101  `_directions` refuses
        rows = norm(residual).flatten(0, 1)
        return widened(self.lm.backbone.unembed(rows)).reshape(*residual.shape[:2], -1)
