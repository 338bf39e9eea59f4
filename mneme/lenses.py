"""Logit lens: what the model would predict from the residual stream of each layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture, require_structure
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.unembedding import row_chunks, widened


@dataclass(frozen=True)
class LensScores:
    """The prediction of each layer at the last real position; layer l is what enters layer l, n_layers the output.

    Shape: log_prob [item layer] nats, of the target token; rank [item layer] int64, 0 = best, tokens with an equal
    logit counted as better; kl [item layer] nats, KL(final prediction || prediction of the layer), at least 0.
    """

    log_prob: Tensor
    rank: Tensor
    kl: Tensor


@torch.no_grad()
def logit_lens(lm: LanguageModel, ids: Tensor | Batch, targets: Tensor, progress: Progress = silent) -> LensScores:
    """Final norm and unembedding applied to the residual stream of every layer, at the last real position.

    Shape: targets [item] int64. Early layers of models with rotary positions are near noise: compare with a lens on an
    untrained model. Source: METHODS 8a; nostalgebraist 2020.
    Raises: BadInput for targets outside the vocabulary; NotApplicable where the layers or the final norm are not found.
    """
    batch = lm.batch(ids)
    norm = require_structure(lm).final_norm
    if norm is None:
        raise NotApplicable(f"{lm.name}: its final norm was not found")
    if targets.shape != batch.lengths.shape or int(targets.min()) < 0 or int(targets.max()) >= lm.vocab_size:
        raise BadInput("targets must be one token of the vocabulary per prompt, [item]")
    targets = targets.to(lm.device)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        residual = capture(lm, part, ["residual"])["residual"]
        last = residual[torch.arange(len(part), device=residual.device), :, part.lengths - 1]
        rows = norm(last).flatten(0, 1)
        wanted = targets[items].repeat_interleave(lm.n_layers + 1)
        finals = rows[lm.n_layers :: lm.n_layers + 1].repeat_interleave(lm.n_layers + 1, dim=0)
        chunks = row_chunks(len(rows), 2 * lm.vocab_size)
        found = [_compared(lm, rows[some], finals[some], wanted[some]) for some in chunks]
        return torch.cat(found).reshape(len(part), lm.n_layers + 1, 3)

    found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    return LensScores(found[..., 0].float(), found[..., 1].long(), found[..., 2].float())


def _compared(lm: LanguageModel, rows: Tensor, finals: Tensor, targets: Tensor) -> Tensor:
    """Log-probability, rank and divergence of rows [row width]: [row 3] float64."""
    logits = widened(lm.backbone.unembed(rows)).double()
    chosen = logits.gather(1, targets[:, None])
    rank = (logits >= chosen).sum(dim=1) - 1
    log_probs = torch.log_softmax(logits, dim=1)
    final = torch.log_softmax(widened(lm.backbone.unembed(finals)).double(), dim=1)
    kl = (final.exp() * (final - log_probs)).sum(dim=1).clamp_min(0.0)
    return torch.stack([log_probs.gather(1, targets[:, None])[:, 0], rank.double(), kl], dim=1)
