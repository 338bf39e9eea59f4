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

    Shape: log_prob [item layer] nats, of the target token, of several together; rank [item layer] int64, 0 = best, of
    the best target, tokens with an equal logit counted as better; kl [item layer] nats, KL(final prediction ||
    prediction of the layer), at least 0; agrees [item layer] bool, whether the likeliest token is that of the final
    prediction, False where several are equally likely.
    """

    log_prob: Tensor
    rank: Tensor
    kl: Tensor
    agrees: Tensor


@torch.no_grad()
def logit_lens(
    lm: LanguageModel,
    ids: Tensor | Batch,
    targets: Tensor,
    progress: Progress = silent,
    *,
    order: Tensor | None = None,
) -> LensScores:
    """Final norm and unembedding applied to the residual stream of every layer, at the last real position.

    Shape: targets [item] or [item answer] int64, -1 = no further one.
    order: a control: [item layer] int64, for each prompt the order in which what the layers added is added up. First
    and last point of the lens stay what they are; a lens that reads progress should lose what lies between.
    Early layers of models with rotary positions are near noise: compare with a lens on an untrained model.
    Source: METHODS 8a; nostalgebraist 2020.
    Raises: BadInput for targets outside the vocabulary; NotApplicable where the layers or the final norm are not found.
    """
    batch = lm.batch(ids)
    norm = require_structure(lm).final_norm
    if norm is None:
        raise NotApplicable(f"{lm.name}: its final norm was not found")
    wanted = _checked(lm, batch, targets)

    def run(items: slice) -> Tensor:
        last = last_residual(lm, batch.select(items))
        if order is not None:
            last = _added_up(last, order[items].to(last.device))
        rows = norm(last).flatten(0, 1)
        asked = wanted[items].repeat_interleave(lm.n_layers + 1, dim=0)
        finals = rows[lm.n_layers :: lm.n_layers + 1].repeat_interleave(lm.n_layers + 1, dim=0)
        chunks = row_chunks(len(rows), 2 * lm.vocab_size)
        found = [_compared(lm, rows[some], finals[some], asked[some]) for some in chunks]
        return torch.cat(found).reshape(len(last), lm.n_layers + 1, 4)

    found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    return LensScores(found[..., 0].float(), found[..., 1].long(), found[..., 2].float(), found[..., 3] > 0)


def last_residual(lm: LanguageModel, batch: Batch) -> Tensor:
    """The residual stream at the last real position, as it enters each layer and leaves the last one.

    Shape: [item layer width], n_layers + 1 layers. Raises: NotApplicable where the layers are not found.
    """
    given = lm.batch(batch)
    residual = capture(lm, given, ["residual"])["residual"]
    return residual[torch.arange(len(given), device=residual.device), :, given.lengths - 1]


def _checked(lm: LanguageModel, batch: Batch, targets: Tensor) -> Tensor:
    """Targets [item answer] on the model's device, -1 = no further one."""
    wanted = targets[:, None] if targets.ndim == 1 else targets
    is_known = wanted.shape[:1] == batch.lengths.shape and bool((wanted >= 0).any(dim=1).all())
    if not is_known or int(wanted.min()) < -1 or int(wanted.max()) >= lm.vocab_size:
        raise BadInput("targets must be one token of the vocabulary per prompt or more, [item] or [item answer]")
    return wanted.to(lm.device)


def _added_up(last: Tensor, order: Tensor) -> Tensor:
    """What enters the first layer and what each layer adds [item layer width], summed up in another order."""
    added = last.diff(dim=1).gather(1, order[:, :, None].expand(-1, -1, last.shape[2]))
    between = last[:, :1] + added[:, :-1].cumsum(dim=1)
    return torch.cat([last[:, :1], between, last[:, -1:]], dim=1)


def _compared(lm: LanguageModel, rows: Tensor, finals: Tensor, targets: Tensor) -> Tensor:
    """Log-probability, rank, divergence and agreement of rows [row width], targets [row answer]: [row 4] float64."""
    logits = widened(lm.backbone.unembed(rows)).double()
    absent = targets < 0
    chosen = logits.gather(1, targets.clamp_min(0)).masked_fill(absent, -torch.inf)
    best = chosen.amax(dim=1, keepdim=True)
    rank = (logits >= best).sum(dim=1) - 1
    log_probs = torch.log_softmax(logits, dim=1)
    final = torch.log_softmax(widened(lm.backbone.unembed(finals)).double(), dim=1)
    kl = (final.exp() * (final - log_probs)).sum(dim=1).clamp_min(0.0)
    is_alone = (logits == logits.amax(dim=1, keepdim=True)).sum(dim=1) == 1
    agrees = is_alone & (logits.argmax(dim=1) == final.argmax(dim=1))
    log_prob = torch.logsumexp(chosen - torch.logsumexp(logits, dim=1, keepdim=True), dim=1)
    return torch.stack([log_prob, rank.double(), kl, agrees.double()], dim=1)
