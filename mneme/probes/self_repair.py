"""How much of a head's removal the layers after it make up for."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import one_of
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.repairing import self_repair as repaired


@probe(
    level="intervention",
    unit="logits",
    low=None,
    high=None,
    effect_name="self_repair_{norm}",
    source="McDougall et al. 2023; METHODS 8b",
)
def self_repair(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  nothing is drawn
    progress: Progress = silent,
    norm: str = "free",
) -> dict[str, Tensor]:
    """SR = (LD_ablated - LD_clean) + DE of each head, whose output is taken from the corrupt prompt at all positions.

    LD is logit[correct] - logit[wrong] at the last position; DE is what the head itself loses of it there: the direct
    effect of its clean output minus that of the donor's, with the clean run's final norm frozen.
    Unit:   logits; larger = more is given back
    Range:  unbounded; 0 = nothing is repaired, DE = all of it, negative = what follows makes the harm worse
    norm:   `free` reads the changed run as it is; `frozen` reads it with the clean run's final scale, so that the
            difference between both is what the final norm repairs

    Returns: effects [item layer head], SR; whole [item layer head], DE, of which the mean SR is a share.
    Raises: NotApplicable without pairs or answers, and for models that norm what their heads write.
    Source: METHODS 8b. Departs from it: DE is taken over the donor's output, not over nothing, since otherwise a head
    whose donor writes the same would seem repaired.
    """
    norm = one_of("self_repair.norm", norm, ("free", "frozen"))
    if prompts.corrupt is None:
        raise NotApplicable("self_repair needs clean and corrupt prompts, and this promptset has no corrupt ones")
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("self_repair needs prompts with correct and wrong answers, and this promptset has none")
    found = repaired(lm, prompts.clean, prompts.corrupt, prompts.correct_ids, prompts.wrong_ids, progress)
    return {"effects": (found.free if norm == "free" else found.frozen).float(), "whole": found.direct.float()}
