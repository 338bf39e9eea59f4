"""How often a model prefers the correct answer to the wrong one."""

from __future__ import annotations

from torch import Tensor

from mneme.answers import PairedAnswers, is_right
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    site="answer_scores",
    is_accuracy=True,
    source="Wang et al. 2022; METHODS 5a",
)
def answer_accuracy(scores: PairedAnswers, prompts: Promptset, *, prompt: str = "clean") -> Tensor:  # noqa: ARG001
    """1 where the best correct answer has a higher logit than the best wrong one, else 0.

    Shape:  [item]
    Unit:   fraction of prompts; a tie is no credit
    Range:  0 or 1; chance is 1/2 for one correct and one wrong answer
    prompt: `clean`, or `corrupt`: the same answers after the corrupt prompt
    Source: METHODS 5a (LD > 0)
    """
    return is_right(scores.of(prompt, "answer_accuracy"))
