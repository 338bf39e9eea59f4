"""What a model gives the answers of a promptset, clean and corrupt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.errors import NotApplicable
from mneme.scores import AnswerScores


@dataclass(frozen=True)
class PairedAnswers:
    """Answer scores of the clean prompts, and of the corrupt ones where there are any."""

    clean: AnswerScores
    corrupt: AnswerScores | None

    def of(self, prompt: str, who: str) -> AnswerScores:
        """The scores of `clean` or `corrupt` prompts; raises NotApplicable when there are no corrupt ones."""
        if one_of(f"{who}.prompt", prompt, ("clean", "corrupt")) == "clean":
            return self.clean
        if self.corrupt is None:
            raise NotApplicable(f"{who} of corrupt prompts: this promptset has no corrupt prompts")
        return self.corrupt


def is_right(answers: AnswerScores) -> Tensor:
    """1 where the best correct answer has a higher logit than the best wrong one, else 0: [item]; a tie is wrong."""
    best, rival = (side.nan_to_num(nan=-torch.inf).amax(dim=1) for side in (answers.correct, answers.wrong))
    return (best > rival).to(answers.correct.dtype)
