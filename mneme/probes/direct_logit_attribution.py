"""What each head itself adds to the logit difference between the correct and the wrong answer."""

from __future__ import annotations

from torch import Tensor

from mneme.attribution import direct_logit_attribution as attributed
from mneme.batching import in_batches
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="logits",
    low=None,
    high=None,
    source="Elhage et al. 2021; Wang et al. 2022; METHODS 8a",
)
def direct_logit_attribution(lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent) -> Tensor:
    """What each head writes at the last position, read as logit[correct] - logit[wrong], with norms frozen.

    Shape:  [item layer head]
    Unit:   logits
    Range:  unbounded; 0 = writes nothing of the sort, negative = favours the wrong answer
    Raises: NotApplicable without one correct and one wrong answer per prompt, and where the parts of the model do not
            add up to its logits; BadInput where both answers are the same
    Source: METHODS 8a
    """
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("direct_logit_attribution needs correct and wrong answers, and this promptset has none")
    correct, wrong = (_only(answers) for answers in (prompts.correct_ids, prompts.wrong_ids))

    def run(items: slice) -> Tensor:
        return attributed(lm, prompts.clean.select(items), correct[items], wrong[items])["heads"].cpu()

    return in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress)


def _only(answers: Tensor) -> Tensor:
    """The single answer of each prompt: [item answer] -> [item]."""
    is_answer = answers >= 0
    if not bool((is_answer.sum(dim=1) == 1).all()):
        raise NotApplicable(
            "direct_logit_attribution needs one correct and one wrong answer per prompt, and a prompt has "
            f"{int(is_answer.sum(dim=1).max())} of one kind"
        )
    return answers.gather(1, is_answer.int().argmax(dim=1, keepdim=True))[:, 0]
