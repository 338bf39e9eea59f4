"""Which heads carry the context's answer to the logits, and which the memorised one."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.conflict_heads import KINDS, head_importance
from mneme.fact_conflicts import as_conflict, known_items
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="logits",
    low=None,
    high=None,
    source="Jin et al. 2024; METHODS 10b",
)
def ph3_importance(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    rank_by: str = "path_patching",
    heads: str = "context",
) -> Tensor:
    """How far logit[context] - logit[memory] falls without what a head carries to the logits about the conflict.

    Shape:  [item layer head]; NaN for prompts whose memorised answer the model does not give closed book
    Unit:   logits
    Range:  unbounded; positive = a context head, negative = a memory head, 0 = neither (`heads: context`)
    rank_by: `path_patching`: the head's direct path to the logits carries what it wrote on the corrupt prompt, where
            the sources are others (all other heads frozen, MLPs recomputed). Controls without paths: `attribution`,
            what the head writes itself; `ablation`, its output zeroed at all positions; `gradient`, its output at all
            positions that of the corrupt prompt, to first order
    heads:  `context`, or `memory` for the same numbers with the other sign, by which memory heads come first where
            another probe takes the heads of this one
    Raises: NotApplicable without answers, and for path patching and gradients without corrupt prompts
    Source: METHODS 10b, whose importance is the rise of logit[memory] - logit[context], the same number; the corrupt
            prompts of `fact_conflict` replace the context's source, the memory's, or both
    """
    conflict = as_conflict(prompts, "ph3_importance")
    sign = 1 if one_of("ph3_importance.heads", heads, KINDS) == "context" else -1
    found = sign * head_importance(lm, conflict, rank_by, progress)
    return found.masked_fill(~known_items(lm, conflict)[:, None, None], torch.nan)
