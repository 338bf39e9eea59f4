"""What heads do through chosen receivers alone: the logits, the queries behind them, or the values behind those."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.path_stages import stage_effects
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="logits",
    low=None,
    high=None,
    source="Wang et al. 2022; Merullo et al. 2023; METHODS 5b",
)
def path_patching(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    stage: str = "logits",
    share: float = 0.02,
) -> Tensor:
    """Fall of the logit difference when a head's corrupt output reaches the receivers of a stage alone.

    Shape:  [item layer head]
    Unit:   logits, clean minus patched, larger = the head helps; negative = it works against the answer
    Range:  unbounded; exactly 0 where no receiver comes later than the head
    stage: `logits`, patched at the last position; `queries`, at the last position, of the heads that matter most to the
            logits; `values` of the heads that matter most to these queries. Other heads are held fixed, MLPs are not
    share: of all heads, how many are the receivers of the next stage, by absolute mean effect, one at least

    Raises: NotApplicable without pairs, answers or the label `end`, or where no head matters to a stage
    Source: METHODS 5b (path patching, the variant of one position), 5c (stage by stage)
    """
    if prompts.corrupt is None or prompts.correct_ids is None or "end" not in prompts.clean.labels:
        raise NotApplicable("path_patching needs clean and corrupt prompts with answers and the label end")
    corrupt = replace(prompts.corrupt, labels=prompts.clean.labels)
    return stage_effects(lm, prompts.clean, corrupt, primary_readout(prompts), stage, share, progress=progress)
