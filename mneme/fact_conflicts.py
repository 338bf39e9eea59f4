"""Prompts whose context contradicts what a model holds by heart: the two answers, and what it says closed book.

The context's answers are the correct ones of a promptset, the memorised answer is the first of its wrong ones.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.encoding import padded
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout
from mneme.scores import AnswerScores
from mneme.scoring import answer_scores

CONTEXT, MEMORY, OTHER = 1.0, -1.0, 0.0  # codes of what a model says
OUTCOMES = {"context": CONTEXT, "memory": MEMORY, "other": OTHER}


def as_conflict(prompts: Promptset, who: str) -> Promptset:
    """The prompts with the memorised answer as the only wrong one; raises NotApplicable without answers."""
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable(
            f"{who} needs the context's answer and the memorised one, and this promptset has no answers"
        )
    return replace(prompts, wrong_ids=prompts.wrong_ids[:, :1])


def question_alone(prompts: Promptset) -> Batch | None:
    """Each prompt without its context: its first token and its question; None where no label says where that begins."""
    if "question_first" not in prompts.clean.labels:
        return None
    offset = int(prompts.facts.get("offset", 0))
    rows = zip(prompts.clean.ids, prompts.clean.labels["question_first"].tolist(), prompts.clean.lengths, strict=True)
    return padded([[*ids[:offset].tolist(), *ids[start:length].tolist()] for ids, start, length in rows])


def known_items(lm: LanguageModel, conflict: Promptset, progress: Progress = silent) -> Tensor:
    """Whether the model says the memorised answer to the question alone, of all tokens it could say: bool [item].

    Prompts without the label `question_first` have no closed-book form: all of them count as known.
    Source: METHODS 10a (keep what the model answers right without the context).
    """
    alone = question_alone(conflict)
    if alone is None:
        return torch.ones(len(conflict), dtype=torch.bool)
    wrong = conflict.wrong_ids
    assert wrong is not None  # noqa: S101  `as_conflict` checks
    return _is_said(answer_scores(lm, alone, wrong[:, :1], progress=progress)).cpu()


def outcomes(lm: LanguageModel, conflict: Promptset, progress: Progress = silent) -> Tensor:
    """What the model says after each prompt, as a code of `OUTCOMES`: [item] float32; NaN where `known_items` is not.

    A tie for the highest logit is no credit to either answer: it counts as another answer.
    """
    assert conflict.correct_ids is not None  # noqa: S101  `as_conflict` checks
    scores = answer_scores(lm, conflict.clean, conflict.correct_ids, conflict.wrong_ids, progress)
    of_memory = AnswerScores(scores.wrong, scores.wrong, scores.top, scores.top_id, scores.n_top, scores.log_normaliser)
    codes = CONTEXT * _is_said(scores).float() + MEMORY * _is_said(of_memory).float()
    return codes.cpu().masked_fill(~known_items(lm, conflict), torch.nan)


def outcome_readout(conflict: Promptset) -> Readout:
    """The code of what is said at the last position, for interventions; ties as in `outcomes`."""
    context, memory = conflict.correct_ids, conflict.wrong_ids
    assert context is not None  # noqa: S101  `as_conflict` checks
    assert memory is not None  # noqa: S101  `as_conflict` checks

    def value(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        said = [_is_best(logits, answers.to(logits.device)[items]) for answers in (context, memory)]
        return CONTEXT * said[0].to(logits) + MEMORY * said[1].to(logits)

    return Readout("outcome", "code", value)


def memory_readout(conflict: Promptset) -> Readout:
    """1 where the memorised answer is said at the last position, else 0, for interventions on the question alone."""
    memory = conflict.wrong_ids
    assert memory is not None  # noqa: S101  `as_conflict` checks
    return Readout(
        "memory", "fraction", lambda logits, items, _: _is_best(logits, memory.to(logits.device)[items]).to(logits)
    )


def share_of(outcome: str, codes: Tensor) -> Tensor:
    """1 where a code is that of the outcome, 0 where it is another one, NaN where it is missing; float32."""
    return (codes == OUTCOMES[outcome]).float().masked_fill(codes.isnan(), torch.nan)


def _is_said(scores: AnswerScores) -> Tensor:
    return (scores.correct == scores.top[:, None]).any(dim=1) & (scores.n_top == 1)


def _is_best(logits: Tensor, answers: Tensor) -> Tensor:
    """Whether one of the answers [row answer] has the highest logit of its row alone: bool [row]."""
    top = logits.amax(dim=1, keepdim=True)
    found = (logits.gather(1, answers.clamp_min(0)) == top) & (answers >= 0)
    return found.any(dim=1) & ((logits == top).sum(dim=1) == 1)
