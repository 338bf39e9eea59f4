"""What a model's predictions are worth: arrays that behavior probes read and traces store."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenScores:
    """How well the true next token was predicted at each position.

    Shape: log_prob [item position] float32 nats; is_top1 [item position] float32, 1 when the next token has the
    highest logit alone, 0 when not (a tie is no credit). NaN at the last real position and at padding.
    """

    log_prob: Tensor
    is_top1: Tensor


@dataclass(frozen=True)
class AnswerScores:
    """Logits at the last real position of each prompt.

    Shape: correct, wrong [item answer] float32, NaN where an item has no such answer; top [item] float32, the highest
    logit, top_id [item] int64, its token (the lowest of several), and n_top [item] int64, how many tokens have it;
    log_normaliser [item] float32, so that exp(correct - log_normaliser) is a probability.
    """

    correct: Tensor
    wrong: Tensor
    top: Tensor
    top_id: Tensor
    n_top: Tensor
    log_normaliser: Tensor
