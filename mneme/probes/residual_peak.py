"""How much larger the first token's residual stream is than that of the others, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.capturing import Trace
from mneme.curve import Curve
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import by_layer, over_prompts, require_first_token


@probe(
    level="curve",
    unit="ratio of norms",
    low=0.0,
    high=None,
    curves={"residual_peak": ("layer", "ratio of norms", 0.0, None)},
    min_tokens=2,
    source="Guo et al. 2024; METHODS 18",
)
def residual_peak(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  all curves are given one
    progress: Progress = silent,
) -> dict[str, Curve]:
    """Norm of the first token's residual stream over the mean norm of the other tokens'.

    x:      layer l = what enters layer l; the last point is what leaves the model
    Unit:   ratio; 1 = as large as the others
    Range:  0 .. unbounded
    Raises: NotApplicable for prompts of one token, or without a token in front, and where the layers are not found.
    Source: METHODS 18 (residual peak)
    """
    require_first_token(prompts, "residual_peak")

    def measure(trace: Trace, part: Batch) -> Tensor:
        norms: Tensor = trace["residual"].float().norm(dim=-1)
        others = part.padding.bool()[:, None, 1:]
        mean: Tensor = norms[:, :, 1:].masked_fill(~others, torch.nan).nanmean(dim=2)
        return norms[:, :, 0] / mean

    return {"residual_peak": by_layer(over_prompts(lm, prompts, ["residual"], measure, progress))}
