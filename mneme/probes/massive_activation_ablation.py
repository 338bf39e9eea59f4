"""What a model loses without its massive activations, against as many other numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mneme.arguments import whole_number
from mneme.curve import Curve
from mneme.errors import BadInput
from mneme.massive_changes import CHANGES, Changes
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="nats",
    low=None,
    high=None,
    curves={
        "massive_set_to_zero": ("activations", "nats", None, None),
        "massive_set_to_mean": ("activations", "nats", None, None),
        "random_set_to_zero": ("activations", "nats", None, None),
        "random_set_to_mean": ("activations", "nats", None, None),
        "elsewhere_set_to_zero": ("activations", "nats", None, None),
    },
    min_tokens=16,
    source="Sun et al. 2024; METHODS 1d",
)
def massive_activation_ablation(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    ks: Sequence[int] = (1, 2, 4, 8),
    layer: int | None = None,
) -> dict[str, Curve]:
    """Rise of the loss when the k largest activations of a prompt are changed where they first stand.

    x:      k, how many activations of a prompt are changed
    massive_set_to_zero, massive_set_to_mean: the k largest become 0, or the mean of all prompts at that position and
            dimension; random_...: so do other dimensions, drawn at random, of the same tokens; elsewhere_set_to_zero:
            so do the same dimensions of other tokens
    Unit:   nats a token: loss of the changed run minus loss of the model, mean over all next tokens
    layer:  at whose input they are changed; None = where the largest activation has risen most, mean over prompts
    Raises: BadInput for ks that are no list of sizes, a layer that does not exist, or more activations than half of
            the dimensions; NotApplicable for prompts under 16 tokens and where the layers are not found.
    Source: METHODS 1d (set to 0, set to empirical mean, random dimensions, the same dimensions of other tokens)
    """
    sizes = _sizes(ks, lm.d_model // 2)
    if layer is not None:
        layer = whole_number("massive_activation_ablation.layer", layer, 1, lm.n_layers - 1)
    changes = Changes.of(lm, lm.batch(prompts.clean), layer)
    found = changes.losses(max(sizes), sizes, probe_seed, progress)
    x = torch.tensor(sizes, dtype=torch.float64)
    return {name: Curve(x, found[:, place]) for place, name in enumerate(CHANGES)}


def _sizes(ks: object, most: int) -> list[int]:
    if not isinstance(ks, list | tuple) or not ks:
        raise BadInput(f"massive_activation_ablation.ks is {ks!r}: give a list of sizes, such as [1, 2, 4]")
    return sorted({whole_number("massive_activation_ablation.ks", k, 1, most) for k in ks})
