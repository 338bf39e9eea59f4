"""Measures of the residual stream, prompt by prompt, without keeping the stream of more than some prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.capturing import Site, SiteName, Trace, capture
from mneme.curve import Curve
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

STORED = 4  # tensors of about the residual's width that are kept of each layer while it is measured


def over_prompts(
    lm: LanguageModel,
    prompts: Promptset,
    sites: Sequence[Site | SiteName],
    measure: Callable[[Trace, Batch], Tensor],
    progress: Progress = silent,
) -> Tensor:
    """What `measure` makes of the sites of some prompts [item ...], for all prompts, on the CPU."""
    batch = lm.batch(prompts.clean)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        return measure(capture(lm, part, sites), part).cpu()

    n_tokens = batch.ids.shape[1]
    return in_batches(lm, len(batch), n_tokens, run, progress, at_most=items_per_group(lm, n_tokens, STORED))


def require_first_token(prompts: Promptset, who: str) -> None:
    """Refuse prompts that begin with their own text: raises NotApplicable."""
    if prompts.facts.get("bos_mode") == "none":
        raise NotApplicable(
            f"{who} compares with the token in front of a prompt, and these prompts have none: set a bos_mode, or bos"
        )


def by_layer(values: Tensor) -> Curve:
    """Values [item layer] as a curve over the layers 0, 1, ..."""
    return Curve(torch.arange(values.shape[1], dtype=torch.float64), values)
