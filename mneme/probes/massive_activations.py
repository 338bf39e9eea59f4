"""Single numbers of the residual stream that dwarf all others, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import number_between
from mneme.batch import Batch
from mneme.capturing import Trace
from mneme.curve import Curve
from mneme.massive import ABSOLUTE, RATIO, count_massive, largest, median_size
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import by_layer, over_prompts

_NAMES = (
    "massive",
    "above_ratio",
    "top_value",
    "second_value",
    "third_value",
    "median_value",
    "top_position",
    "top_dimension",
)


@probe(
    level="curve",
    unit="activations per prompt",
    low=0.0,
    high=None,
    curves={
        "massive": ("layer", "activations per prompt", 0.0, None),
        "above_ratio": ("layer", "activations per prompt", 0.0, None),
        "top_value": ("layer", "absolute activation", 0.0, None),
        "second_value": ("layer", "absolute activation", 0.0, None),
        "third_value": ("layer", "absolute activation", 0.0, None),
        "median_value": ("layer", "absolute activation", 0.0, None),
        "top_position": ("layer", "position", 0.0, None),
        "top_dimension": ("layer", "dimension", 0.0, None),
    },
    min_tokens=2,
    source="Sun et al. 2024; METHODS 1d",
)
def massive_activations(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  all curves are given one
    progress: Progress = silent,
    absolute: float = ABSOLUTE,
    ratio: float = RATIO,
) -> dict[str, Curve]:
    """Massive activations of each prompt: how many, how large, and where.

    x:      layer l = what enters layer l; the last point is what leaves the model, before its final norm
    massive: how many |h| are above `absolute` and at least `ratio` times the median |h| of that prompt and layer
    above_ratio: how many are at least `ratio` times the median, however small: the rule for rescaled embeddings
    top_value, second_value, third_value: the largest |h|; median_value: the median |h|
    top_position, top_dimension: where the largest stands, to be read prompt by prompt: a mean over prompts is a place
            only where all prompts agree
    Unit:   counts per prompt, absolute values of the residual stream, indices
    Range:  0 .. unbounded
    Raises: BadInput for rules that are no numbers, and where the stream holds NaN or infinity; NotApplicable for
            prompts of one token and models whose layers are not found.
    Source: METHODS 1d (the paper's rule: 100, 1,000)
    """
    absolute = number_between("massive_activations.absolute", absolute, 0, torch.inf)
    ratio = number_between("massive_activations.ratio", ratio, 0, torch.inf)

    def measure(trace: Trace, part: Batch) -> Tensor:
        states, padding = trace["residual"], part.padding
        top = largest(states, padding, 3)
        found = [
            count_massive(states, padding, absolute, ratio),
            count_massive(states, padding, 0.0, ratio),
            *top.values.unbind(dim=-1),
            median_size(states, padding),
            top.positions[..., 0],
            top.dimensions[..., 0],
        ]
        return torch.stack([each.float() for each in found], dim=1)

    found = over_prompts(lm, prompts, ["residual"], measure, progress)
    return {name: by_layer(found[:, place]) for place, name in enumerate(_NAMES)}
