"""How often a model gives the memorised answer when it is asked without the context."""

from __future__ import annotations

from torch import Tensor

from mneme.errors import NotApplicable
from mneme.fact_conflicts import as_conflict, known_items, question_alone
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="behavior",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    is_accuracy=True,
    source="Yu et al. 2023; METHODS 10a",
)
def closed_book_accuracy(lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent) -> Tensor:
    """1 where the model says the memorised answer, the first wrong one, to the question of a prompt alone, else 0.

    These are the prompts that count in `context_rate` and in all other probes of a conflict; the others are dropped.

    Shape:  [item]
    Unit:   fraction of prompts; the highest logit of all tokens counts, a tie is no credit
    Range:  0 or 1
    Raises: NotApplicable without answers, or where no label `question_first` says where the question begins
    Source: METHODS 10a (keep what the model answers right without the context)
    """
    conflict = as_conflict(prompts, "closed_book_accuracy")
    if question_alone(conflict) is None:
        raise NotApplicable("closed_book_accuracy needs prompts whose question has the label question_first")
    known = known_items(lm, conflict, progress)
    return known.float()
