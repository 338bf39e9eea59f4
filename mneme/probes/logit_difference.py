"""How much more a model favours the correct answer than the wrong one."""

from __future__ import annotations

from torch import Tensor

from mneme.answers import PairedAnswers
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="logits",
    low=None,
    high=None,
    site="answer_scores",
    source="Wang et al. 2022; METHODS 3",
)
def logit_difference(scores: PairedAnswers, prompts: Promptset, *, prompt: str = "clean") -> Tensor:  # noqa: ARG001
    """Logit of the correct answer minus logit of the wrong one at the last position (means, where there are several).

    Shape:  [item]
    Unit:   logits
    Range:  unbounded; 0 = no preference
    prompt: `clean`, or `corrupt`: the same answers after the corrupt prompt
    Source: METHODS 3 (LD)
    """
    answers = scores.of(prompt, "logit_difference")
    return answers.correct.nanmean(dim=1) - answers.wrong.nanmean(dim=1)
