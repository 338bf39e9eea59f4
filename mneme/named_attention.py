"""Attention from one labelled token to another, of every head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import position_of

Named = tuple[str, str]  # the labels of the query and of the key
Change = Callable[[AttentionCall, Tensor, slice], Tensor]


@torch.no_grad()
def attention_between(lm: LanguageModel, batch: Batch, pairs: Sequence[Named], change: Change | None = None) -> Tensor:
    """Attention of each head from one labelled token to another, for every pair: [item layer head pair], 0 .. 1.

    change: (call, z [item position head width], some) -> what the heads of the call's layer write instead, for the
    prompts `some`; the attention of later layers is then that of the changed run.
    NaN where the key lies outside a layer's window. Raises: BadInput for an unknown label.
    """
    batch = lm.batch(batch)
    queries, keys = (torch.stack([position_of(batch, pair[side]) for pair in pairs], dim=1) for side in (0, 1))

    def run(some: slice) -> Tensor:
        part, found = batch.select(some), []

        def watch(call: AttentionCall) -> Tensor:
            found.append(_entries(call.inputs(part.lengths), queries[some], keys[some]))
            z = call.compute()
            return z if change is None else change(call, z, some)

        with handled(lm.attention_modules, watch):
            lm.backbone.hidden(part.ids)
        return torch.stack(found, dim=1).cpu()

    return in_batches(lm, len(batch), batch.ids.shape[1], run)


def _entries(layer: AttentionInputs, queries: Tensor, keys: Tensor) -> Tensor:
    shares = layer.entries(queries, keys)
    if layer.window is None:
        return shares
    return shares.masked_fill((keys <= queries - layer.window)[:, None], torch.nan)
