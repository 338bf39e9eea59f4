"""Runs the base prompts with the residual stream or an MLP's output of one layer taken from donor prompts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import require_structure
from mneme.change_plan import Units, plan, same_start
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, record_baseline, restart, rows_of

LayerSite = Literal["residual", "mlp_out"]


def run_layer_changes(  # noqa: PLR0913  the parts of one question
    lm: LanguageModel,
    base: Batch,
    donor: Batch,
    readout: Readout,
    site: LayerSite,
    places: Tensor,
    progress: Progress = silent,
) -> Tensor:
    """The readout of every base prompt under every patch: places [place item], -1 = all -> [item layer place].

    Exact: a patch of layer l runs the layers from l on, from the first position that it alters on.
    """
    group = _LayerGroup(lm, base, donor, readout, site, places)
    return group.run(progress)


class _LayerGroup:
    def __init__(
        self, lm: LanguageModel, base: Batch, donor: Batch, readout: Readout, site: LayerSite, places: Tensor
    ) -> None:
        self.lm = lm
        self.readout = readout
        self.site = site
        self.where = ReadRows.of(readout, base)
        self.structure = require_structure(lm)
        if site == "mlp_out" and any(part.mlp_write is None for part in self.structure.parts):
            raise NotApplicable(f"{lm.name}: what its MLPs add to the residual stream was not found")
        self.base = record_baseline(lm, base, lambda *_: None, with_mlps=True)
        self.donor = record_baseline(lm, donor, lambda *_: None, with_mlps=True)
        self.places = places.repeat(lm.n_layers, 1)  # one set for each layer and place
        layers = torch.arange(lm.n_layers, device=base.ids.device).repeat_interleave(len(places))
        self.mask = torch.zeros(len(layers), lm.n_layers, 1, dtype=torch.bool, device=layers.device)
        self.mask[torch.arange(len(layers)), layers] = True
        self.items = torch.arange(len(base), device=base.ids.device)
        pairs = zip(self._states(self.base), self._states(self.donor), strict=True)
        differs = torch.stack([(old != new).any(dim=2) for old, new in pairs], dim=1) & base.padding.bool()[:, None]
        first_read = self.where.positions.amin(dim=1) * self.structure.has_plain_cache
        self.units = plan(differs[:, :, None], self.mask, self.places, first_read)

    def run(self, progress: Progress) -> Tensor:
        """Readouts [item layer place]."""
        rows = take_rows(self.base.hidden, self.items, self.where)
        unchanged = read_hidden(self.lm, self.readout, rows, self.items, self.where)
        result, n_positions = unchanged.repeat(len(self.places)), self.base.batch.ids.shape[1]
        for layer in range(self.lm.n_layers):
            for which, prefix in same_start(self.units, layer, n_positions):
                units = self.units.take(which)

                def run(some: slice, layer: int = layer, prefix: int = prefix, units: Units = units) -> Tensor:
                    return self._run(layer, prefix, units.sets[some], units.items[some])

                result[which] = in_batches(self.lm, len(which), n_positions - prefix, run)
            progress(layer + 1, self.lm.n_layers)
        return result.reshape(self.lm.n_layers, -1, len(self.items)).permute(2, 0, 1)

    def _states(self, baseline: Baseline) -> list[Tensor]:
        return baseline.inputs if self.site == "residual" else baseline.mlps

    def _run(self, layer: int, prefix: int, sets: Tensor, items: Tensor) -> Tensor:
        places, positions = self.places[sets, items], torch.arange(prefix, self.base.batch.ids.shape[1])
        here = (places[:, None] < 0) | (places[:, None] == positions.to(places))
        old, new = (self._states(each)[layer][items, prefix:] for each in (self.base, self.donor))
        changed = torch.where(here[:, :, None], new, old)
        is_residual = self.site == "residual"
        first = layer if is_residual else layer + 1  # the first layer whose attention runs
        run = Restart(
            layer=layer,
            ids=self.base.batch.ids[items, prefix:],
            inputs=changed if is_residual else self.base.inputs[layer][items, prefix:],
            writes={} if is_residual else {layer: self.base.writes[layer][items, prefix:]},
            mlps={} if is_residual else {layer: changed},
            prefix=self._prefix(first, prefix, items),
        )
        hidden = rows_of(restart(self.lm, run), self.where.positions[items] - prefix)
        return read_hidden(self.lm, self.readout, hidden, items, self.where)

    def _prefix(self, first: int, prefix: int, items: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        if prefix == 0:
            return {}
        keys, values = self.base.keys, self.base.values
        layers = range(min(first, self.lm.n_layers - 1), self.lm.n_layers)
        return {each: (keys[each][items, :, :prefix], values[each][items, :, :prefix]) for each in layers}
