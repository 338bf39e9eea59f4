"""How much of what a head does to the predictions is copy suppression: lowering what is predicted and stands before."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.copying import EMBEDDINGS
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.preserving import Preserved, divergences
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

LEAST_NATS = 1e-5  # METHODS 8b: a head whose ablation moves the predictions by less does nothing to explain


@probe(
    level="intervention",
    unit="nats",
    low=None,
    high=None,
    effect_name="copy_suppression",
    source="McDougall et al. 2023; METHODS 8b",
)
def copy_suppression(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    n_targets: int = 5,
    n_sources: int = 10,
    keep: str = "both",
    targets: str = "suppressed",
    embedding: str = "effective",
) -> dict[str, Tensor]:
    """Divergence from the model that returns when a mean-ablated head gets back its copy suppression alone (CSPA).

    The head's output becomes its mean over the prompts, per position. Of each source's output beyond that mean, only
    the part in the span of the unembeddings of the 5 tokens that the head lowers most when attending to it is put
    back, and only of the 10 sources whose such tokens the position predicts most before the head (logit lens). The
    change is added to the last residual: its direct effect, through the final norm.
    Unit:   nats: KL(model || ablated) - KL(model || preserved), mean over all positions; the normalised effect, over
            KL(model || ablated), is the CSPA score
    Range:  the score is at most 1; 0 = no more than the mean; negative = what is kept does harm. NaN for a head whose
            mean KL(model || ablated) is below 1e-5
    keep:   `both`; `ov` keeps the span of every source; `qk` keeps all that the chosen sources write
    n_targets, n_sources: the 5 and the 10 above; embedding: of the source tokens, `effective` or `plain`
    targets: `suppressed`, or `random` tokens as a control, drawn by the probe's seed for each source token

    Returns: effects and whole [item layer head].
    Raises: NotApplicable for a single prompt, whose mean is itself, and where the OV circuit has no fixed weights.
    Source: METHODS 8b (CSPA); random heads of the layer are its other rows
    """
    place = "copy_suppression"
    keep = one_of(f"{place}.keep", keep, ("both", "ov", "qk"))
    kept = Preserved(
        n_targets=whole_number(f"{place}.n_targets", n_targets, 1),
        n_sources=None if keep == "ov" else whole_number(f"{place}.n_sources", n_sources, 0),
        is_projected=keep != "qk",
        is_random=one_of(f"{place}.targets", targets, ("suppressed", "random")) == "random",
        embedding="effective" if one_of(f"{place}.embedding", embedding, EMBEDDINGS) == "effective" else "plain",
        seed=probe_seed,
    )
    if len(prompts) < 2:
        raise NotApplicable("copy_suppression takes the mean of a head over the prompts: give two at least")
    found = divergences(lm, prompts.clean, kept, progress)
    does_nothing = found.ablated.double().mean(dim=0) < LEAST_NATS
    whole, effects = (
        each.masked_fill(does_nothing, torch.nan) for each in (found.ablated, found.ablated - found.preserved)
    )
    return {"effects": effects, "whole": whole}
