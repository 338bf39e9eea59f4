"""Scores a model's predictions: the next token at every position, and the answers of a promptset."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.scores import AnswerScores, TokenScores
from mneme.unembedding import row_chunks, widened


@torch.no_grad()
def token_scores(lm: LanguageModel, ids: Tensor | Batch, progress: Progress = silent) -> TokenScores:
    """Log-probability and top-1 hit of the true next token at each position, [item position vocab] never in memory."""
    batch = lm.batch(ids)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        both = torch.stack(scores_of_hidden(lm, lm.backbone.hidden(part.ids), part), dim=1)
        return F.pad(both, (0, batch.ids.shape[1] - both.shape[2]), value=torch.nan)

    both = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    return TokenScores(both[:, 0], both[:, 1])


@torch.no_grad()
def scores_of_hidden(lm: LanguageModel, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability and top-1 hit [item position], from final hidden states [item position width] of the batch."""
    n_positions = batch.ids.shape[1]
    has_next = torch.arange(n_positions, device=batch.ids.device) < batch.lengths[:, None] - 1
    items, positions = torch.nonzero(has_next, as_tuple=True)
    log_prob = torch.full(batch.ids.shape, torch.nan, device=batch.ids.device)
    is_top1 = log_prob.clone()
    for some in row_chunks(len(items), lm.vocab_size):
        rows, target = (items[some], positions[some]), batch.ids[items[some], positions[some] + 1]
        logits = widened(lm.backbone.unembed(hidden[rows]))
        chosen = logits.gather(1, target[:, None])
        log_prob[rows] = (chosen[:, 0] - torch.logsumexp(logits, dim=1)).float()
        is_top1[rows] = ((logits >= chosen).sum(dim=1) == 1).float()
    return log_prob, is_top1


@torch.no_grad()
def answer_scores(
    lm: LanguageModel,
    ids: Tensor | Batch,
    correct_ids: Tensor,
    wrong_ids: Tensor | None = None,
    progress: Progress = silent,
) -> AnswerScores:
    """Logits of correct and wrong answers and of the best token at the last real position.

    Shape: correct_ids, wrong_ids [item answer] int64, -1 = none; wrong_ids None = no wrong answers at all.
    """
    batch = lm.batch(ids)
    wrong_ids = torch.full((len(batch), 1), -1) if wrong_ids is None else wrong_ids
    for side, answers in (("correct", correct_ids), ("wrong", wrong_ids)):
        if answers.ndim != 2 or len(answers) != len(batch) or int(answers.max()) >= lm.vocab_size:
            raise BadInput(f"{side} answers must be ids [item answer] of the vocabulary, one row per prompt")

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        hidden = lm.backbone.hidden(part.ids)
        last = hidden[torch.arange(len(hidden), device=hidden.device), part.lengths - 1]
        logits = widened(lm.backbone.unembed(last))
        top, top_id = logits.max(dim=1)
        columns = [_taken(logits, correct_ids[items]), _taken(logits, wrong_ids[items])]
        n_top = (logits == top[:, None]).sum(dim=1)
        facts = torch.stack([top, torch.logsumexp(logits, dim=1), top_id.to(logits), n_top.to(logits)], dim=1)
        return torch.cat([*columns, facts], dim=1).double()

    found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    correct, wrong, facts = torch.split(found, [correct_ids.shape[1], wrong_ids.shape[1], 4], dim=1)
    top, normaliser, top_id, n_top = facts.unbind(dim=1)
    return AnswerScores(correct.float(), wrong.float(), top.float(), top_id.long(), n_top.long(), normaliser.float())


def _taken(logits: Tensor, answers: Tensor) -> Tensor:
    answers = answers.to(logits.device)
    return logits.gather(1, answers.clamp_min(0)).masked_fill(answers < 0, torch.nan)
