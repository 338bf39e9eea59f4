"""How often a model says the answer that the context gives, of all tokens it could say."""

from __future__ import annotations

from torch import Tensor

from mneme.fact_conflicts import as_conflict, outcomes, share_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    source="Yu et al. 2023; METHODS 10a",
)
def context_rate(lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent) -> Tensor:
    """1 where the token with the highest logit of all is a correct answer, the context's, else 0.

    Shape:  [item]; NaN for prompts whose memorised answer the model does not give closed book, where the prompts say
            which part is the question
    Unit:   fraction of prompts
    Range:  0 or 1; a tie is no credit
    Raises: NotApplicable without correct and wrong answers
    Source: METHODS 10a (outcomes per prompt)
    """
    conflict = as_conflict(prompts, "context_rate")
    return share_of("context", outcomes(lm, conflict, progress))
