"""Ablates whole layers: what the attention module or the MLP of a layer writes, replaced by its mean over prompts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_forward, items_per_group
from mneme.capturing import require_structure
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.patching import position_of
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, record_baseline, restart

LayerWrite = Literal["attention", "mlp"]
STORED = 8  # tensors a layer that are kept of each prompt: the baseline with what its MLPs write


@torch.no_grad()
def mean_ablate_layers(
    lm: LanguageModel,
    batch: Batch,
    readout: Readout,
    site: LayerWrite,
    position: str | int | None = None,
    *,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each prompt with what one layer's attention or MLP writes set to its mean: [item layer].

    site: `attention`, all heads of a layer together with their output bias, or `mlp`. The mean is over the prompts
    themselves, at each position over those that are so long; position: a label or an index, where the write is
    replaced there alone, by the mean over the prompts at their own places. Unit: the readout's.
    Source: METHODS 3 (mean ablation). Raises: BadInput for an unknown position or a bad readout; NotApplicable where
    the model's MLPs are not found.
    """
    given = lm.batch(batch)
    if any(part.mlp_write is None for part in require_structure(lm).parts):
        raise NotApplicable(f"{lm.name}: what its MLPs add to the residual stream was not found")
    places = None if position is None else position_of(given, position)
    means = _means(lm, given, site, places)
    where, n_tokens = ReadRows.of(readout, given), given.ids.shape[1]

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=given.ids.device)
        baseline = _recorded(lm, given.select(some))
        found = []
        for layer in range(lm.n_layers):
            changed = _changed(_written(baseline, site)[layer], means[layer], None if places is None else places[some])
            rows = take_rows(restart(lm, _ablated(baseline, site, layer, changed)), items, where)
            found.append(read_hidden(lm, readout, rows, items, where))
        progress(some.stop * lm.n_layers, len(given) * lm.n_layers)
        return torch.stack(found, dim=1)

    return in_batches(lm, len(given), n_tokens, run, at_most=items_per_group(lm, n_tokens, STORED))


def _recorded(lm: LanguageModel, batch: Batch) -> Baseline:
    return record_baseline(lm, batch, lambda *_: None, with_mlps=True)


def _written(baseline: Baseline, site: LayerWrite) -> list[Tensor]:
    return baseline.mlps if site == "mlp" else baseline.writes


def _means(lm: LanguageModel, batch: Batch, site: LayerWrite, places: Tensor | None) -> Tensor:
    """The mean write of each layer: [layer position d_model], of one position where places are given."""
    counted = batch.padding if places is None else torch.ones_like(batch.padding[:, :1])
    total, n_positions = torch.zeros(()), counted.shape[1]
    size = min(items_per_forward(lm, batch.ids.shape[1]), items_per_group(lm, batch.ids.shape[1], STORED))
    for start in range(0, len(batch), size):
        some = slice(start, start + size)
        written = torch.stack(_written(_recorded(lm, batch.select(some)), site))
        if places is not None:
            written = written[:, torch.arange(written.shape[1], device=places.device), places[some]][:, :, None]
        summed = (written * counted[some, : written.shape[2], None]).sum(dim=1)
        total = total.to(summed) + pad(summed, (0, 0, 0, n_positions - summed.shape[1]))
    return total / counted.sum(dim=0)[:, None]


def _changed(written: Tensor, mean: Tensor, places: Tensor | None) -> Tensor:
    """What a layer writes once it is ablated: [item position d_model]."""
    if places is None:
        return mean[None, : written.shape[1]].expand_as(written)
    changed = written.clone()
    changed[torch.arange(len(written), device=written.device), places] = mean[0]
    return changed


def _ablated(baseline: Baseline, site: LayerWrite, layer: int, changed: Tensor) -> Restart:
    """The run from the ablated layer on; an ablated MLP leaves the attention of its layer as it is."""
    return Restart(
        layer=layer,
        ids=baseline.batch.ids,
        inputs=baseline.inputs[layer],
        writes={layer: baseline.writes[layer] if site == "mlp" else changed},
        mlps={layer: changed} if site == "mlp" else {},
    )
