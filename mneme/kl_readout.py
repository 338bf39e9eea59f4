"""The readout that asks how far the predictions have moved from those of the model on its clean prompts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.model import LanguageModel
from mneme.readouts import Readout, ReadRows, log_probability, take_rows
from mneme.unembedding import widened


@torch.no_grad()
def kl_from_clean(lm: LanguageModel, clean_ids: Tensor | Batch, positions: Tensor | None = None) -> Readout:
    """KL(model on the clean prompts || run), the mean over the positions that are read; nats, lower is nearer.

    positions: None = the last real one, or bool [item position], none of them the last or padding. The
    log-probabilities of the whole vocabulary are kept. Range: at least 0, up to rounding; 0, with a gradient of 0,
    where nothing is changed. Source: METHODS 7; Conmy et al. 2023.
    Raises: BadInput for positions that do not fit the prompts.
    """
    batch = lm.batch(clean_ids)
    read = None if positions is None else log_probability(batch, positions.to(batch.ids.device)).positions
    where = ReadRows.of(Readout("kl_from_clean", "nats", lambda logits, _, __: logits[:, 0], read), batch)

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=batch.ids.device)
        rows = take_rows(lm.backbone.hidden(batch.ids[some]), items, where)
        logits = widened(lm.backbone.unembed(rows.flatten(0, 1)))
        return F.log_softmax(logits, dim=-1).reshape(*rows.shape[:2], -1)

    clean = in_batches(lm, len(batch), batch.ids.shape[1], run)

    def value(logits: Tensor, items: Tensor, places: Tensor) -> Tensor:
        index = (where.positions[items] == places[:, None]).int().argmax(dim=1)
        found = F.log_softmax(logits, dim=-1)
        return F.kl_div(found, clean[items, index].to(found), reduction="none", log_target=True).sum(dim=-1)

    return Readout("kl_from_clean", "nats", value, positions=read)
