"""Prompts with what the model says next, greedily."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.unembedding import widened


@torch.no_grad()
def continued(lm: LanguageModel, batch: Batch, n_new: int) -> Batch:
    """Each prompt with `n_new` tokens after it, each the most likely one after all before it; of equals the lowest id.

    Raises: NotApplicable where a prompt and its continuation exceed the context.
    """
    batch = lm.batch(batch)
    width = int(batch.lengths.max()) + n_new
    if lm.context is not None and width > lm.context:
        raise NotApplicable(
            f"a prompt of {width - n_new} tokens and {n_new} generated ones exceed the {lm.context} of {lm.name}"
        )
    ids = torch.nn.functional.pad(batch.ids, (0, width - batch.ids.shape[1]))
    for step in range(n_new):

        def run(items: slice, lengths: Tensor = batch.lengths + step) -> Tensor:
            hidden = lm.backbone.hidden(ids[items, : int(lengths.max())])
            last = hidden[torch.arange(len(hidden), device=hidden.device), lengths[items] - 1]
            return widened(lm.backbone.unembed(last)).argmax(dim=1)

        said = in_batches(lm, len(batch), width, run)
        ids[torch.arange(len(ids), device=ids.device), batch.lengths + step] = said
    return Batch(ids, batch.lengths + n_new)
