"""How often a model says a correct answer, of all tokens it could say."""

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
    source="Merullo et al. 2023; METHODS 0, 5c",
)
def top1_accuracy(scores: PairedAnswers, prompts: Promptset, *, prompt: str = "clean") -> Tensor:  # noqa: ARG001
    """1 where the token with the highest logit of the whole vocabulary is a correct answer, else 0.

    Shape:  [item]
    Unit:   fraction of prompts; a tie with a token that is not correct is no credit
    Range:  0 or 1; chance is the share of correct answers in the vocabulary
    prompt: `clean`, or `corrupt`: the same answers after the corrupt prompt
    Source: METHODS 5c (accuracy over the vocabulary)
    """
    answers = scores.of(prompt, "top1_accuracy")
    n_correct = (answers.correct == answers.top[:, None]).sum(dim=1)
    return (n_correct >= answers.n_top).to(answers.correct.dtype)
