"""Forces where heads look: rows of attention are set before the values are weighed, everything else is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.head_changes import HeadChanges, HeadSet, Replacement, check_sets, run_changes
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.named_attention import Named, attention_between
from mneme.patching import position_of
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout

_ROUNDING = 1e-4  # by how much the weights of a row may miss 1


@torch.no_grad()
def force_attention(  # noqa: PLR0913  the parts of one question
    lm: LanguageModel,
    ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    sets: Sequence[HeadSet],
    rows: Tensor,
    query: str | int,
    *,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each prompt with the heads of a set made to attend as `rows` say at one query: [item set].

    Shape: rows [item key] float, the attention of every forced head at the query's position, each adding up to 1; the
    head then writes the so weighed mean of its own values. Other rows, other heads and later layers are free; an empty
    set changes nothing. Exact, see `head_changes`. Unit: the readout's.
    Source: METHODS 5c; Merullo et al. 2023.
    Raises: BadInput for rows of another shape, negative, not adding up to 1, or on keys after the query; for keys out
    of a layer's window; for heads, labels or a readout that do not fit. NotApplicable outside the attention interface.
    """
    batch = lm.batch(ids)
    places = position_of(batch, query)
    rows = _checked(lm, batch, rows.to(batch.ids.device), places, sets)

    def prepare(items: Tensor) -> Replacement:
        return lambda call, z, local: _forced(call, z, rows[items[local]])

    changes = HeadChanges(sets, prepare, places.expand(len(sets), -1))
    return run_changes(lm, batch, as_readout(readout), changes, progress)


@torch.no_grad()
def attention_when_forced(
    lm: LanguageModel, ids: Tensor | Batch, pairs: Sequence[Named], heads: HeadSet, rows: Tensor, query: str | int
) -> Tensor:
    """Attention between labelled tokens while some heads look where `rows` say: [item layer head pair], 0 .. 1.

    `rows` and `query` as in `force_attention`. Heads up to the first forced layer look as in the free run, and
    of a forced head this says where it would have looked. NaN where the key lies outside a layer's window.
    Source: METHODS 5c. Raises: as `force_attention`, and BadInput for an unknown label.
    """
    batch = lm.batch(ids)
    places = position_of(batch, query)
    check_sets(lm, [heads])
    rows = _checked(lm, batch, rows.to(batch.ids.device), places, [heads])

    def change(call: AttentionCall, z: Tensor, some: slice) -> Tensor:
        here = [head for layer, head in heads if layer == call.layer]
        if not here:
            return z
        now, items, at = z.clone(), torch.arange(len(z), device=z.device), places[some]
        for head in here:
            now[items, at, head] = _forced(call, z, rows[some])[items, at, head]
        return now

    return attention_between(lm, batch, pairs, change)


def even_rows(batch: Batch, labels: Sequence[str]) -> Tensor:
    """Rows that share attention evenly among labelled tokens: [item key], a token named twice gets two shares.

    Raises: BadInput for no label, or an unknown one.
    """
    if not labels:
        raise BadInput(f"no label is given to attend to: the prompts have {', '.join(batch.labels) or 'none'}")
    rows = torch.zeros(batch.ids.shape, dtype=torch.float64, device=batch.ids.device)
    for label in labels:
        rows.scatter_add_(1, position_of(batch, label)[:, None], torch.full_like(rows[:, :1], 1 / len(labels)))
    return rows


def _checked(lm: LanguageModel, batch: Batch, rows: Tensor, places: Tensor, sets: Sequence[HeadSet]) -> Tensor:
    if rows.shape != batch.ids.shape:
        raise BadInput(f"rows of attention must be [item key] {tuple(batch.ids.shape)}, not {tuple(rows.shape)}")
    totals = rows.double().sum(dim=1)
    if bool((rows < 0).any()) or not bool(((totals - 1).abs() < _ROUNDING).all()):
        raise BadInput("every row of attention must be made of shares from 0 on that add up to 1")
    keys = torch.arange(rows.shape[1], device=rows.device)
    is_seen = keys <= places[:, None]
    if bool((rows[~is_seen] > 0).any()):
        raise BadInput("a row of attention names a token after its query, which no head of a causal model sees")
    for layer in sorted({layer for heads in sets for layer, _ in heads if 0 <= layer < lm.n_layers}):
        window = lm.windows[layer]
        if window is not None and bool((rows[keys <= places[:, None] - window] > 0).any()):
            raise BadInput(f"a row of attention names a token out of the window of layer {layer}, {window} tokens")
    return rows


def _forced(call: AttentionCall, z: Tensor, rows: Tensor) -> Tensor:
    """What heads write at the query under forced rows [unit key], given at every position of z: the query's counts."""
    n_shared = z.shape[2] // call.value.shape[1]
    weighed = torch.einsum("uk,ugkw->ugw", rows[:, : call.value.shape[2]].to(call.value), call.value)
    return weighed.repeat_interleave(n_shared, dim=1)[:, None].expand_as(z)
