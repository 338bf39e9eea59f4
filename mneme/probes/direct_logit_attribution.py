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

    Of several answers of a kind the mean logit counts, as in `logit_difference` and `head_patching`.

    Shape:  [item layer head]
    Unit:   logits
    Range:  unbounded; 0 = writes nothing of the sort, negative = favours the wrong answer
    Raises: NotApplicable without correct and wrong answers, and where the parts of the model do not add up to its
            logits; BadInput where an answer is both, or a prompt has none of a kind
    Source: METHODS 8a
    """
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("direct_logit_attribution needs correct and wrong answers, and this promptset has none")
    correct, wrong = prompts.correct_ids, prompts.wrong_ids

    def run(items: slice) -> Tensor:
        return attributed(lm, prompts.clean.select(items), correct[items], wrong[items])["heads"].cpu()

    return in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress)
