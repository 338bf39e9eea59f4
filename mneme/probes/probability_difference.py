"""How much more probability a model gives the correct answers than the wrong ones."""

from __future__ import annotations

from torch import Tensor

from mneme.answers import PairedAnswers
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="probability",
    low=-1.0,
    high=1.0,
    site="answer_scores",
    source="Hanna et al. 2023; METHODS 11",
)
def probability_difference(scores: PairedAnswers, prompts: Promptset, *, prompt: str = "clean") -> Tensor:  # noqa: ARG001
    """Sum of the probabilities of the correct answers minus that of the wrong ones, at the last position.

    Shape:  [item]
    Unit:   probability; the rest of the vocabulary has the rest of it
    Range:  -1 .. 1; equal probabilities give the share of correct minus the share of wrong answers in the vocabulary
    prompt: `clean`, or `corrupt`: the same answers after the corrupt prompt
    Source: METHODS 11 (prob_diff)
    """
    answers = scores.of(prompt, "probability_difference")
    correct, wrong = (
        (side - answers.log_normaliser[:, None]).exp().nansum(dim=1) for side in (answers.correct, answers.wrong)
    )
    return correct - wrong
