"""How often a model gives the correct answers together more probability than the wrong ones together."""

from __future__ import annotations

from torch import Tensor

from mneme.answers import PairedAnswers
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    site="answer_scores",
    is_accuracy=True,
    source="Hanna et al. 2023; METHODS 11",
)
def set_accuracy(scores: PairedAnswers, prompts: Promptset, *, prompt: str = "clean") -> Tensor:  # noqa: ARG001
    """1 where the probabilities of the correct answers sum to more than those of the wrong ones, else 0.

    Shape:  [item]
    Unit:   fraction of prompts; a tie is no credit
    Range:  0 or 1; chance is what almost equal probabilities give: the larger set wins, equal sets win half of the time
    prompt: `clean`, or `corrupt`: the same answers after the corrupt prompt
    Source: METHODS 11 (prob_diff > 0), for promptsets whose correct answers are a set
    """
    answers = scores.of(prompt, "set_accuracy")
    correct, wrong = (side.nan_to_num(nan=-float("inf")).logsumexp(dim=1) for side in (answers.correct, answers.wrong))
    return (correct > wrong).to(answers.correct.dtype)
