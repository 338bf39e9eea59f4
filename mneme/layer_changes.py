"""Runs the base prompts with the residual stream or an MLP's output of one layer taken from donor prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group, tokens_with_prefix
from mneme.capturing import require_structure
from mneme.change_plan import Units, plan, same_start
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.prefix_cache import Prefix
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, record_baseline, restart, rows_of

STORED = 12  # tensors a layer that are kept of each pair: two baselines with what their MLPs write

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

    Exact: a patch of layer l runs the layers from l on, from the first position that it alters on. Pairs go in groups
    whose stored activations fit in memory.
    """
    if site == "mlp_out" and any(part.mlp_write is None for part in require_structure(lm).parts):
        raise NotApplicable(f"{lm.name}: what its MLPs add to the residual stream was not found")
    where, n_tokens = ReadRows.of(readout, base), base.ids.shape[1]

    def run(some: slice) -> Tensor:
        pairs = base.select(some), donor.select(some)
        items = torch.arange(some.start, some.stop, device=base.ids.device)
        group = _LayerGroup(lm, pairs, items, readout, where, site, places[:, some])
        before, in_all = some.start * lm.n_layers, len(base) * lm.n_layers
        return group.run(lambda layers: progress(before + layers * len(items), in_all))

    return in_batches(lm, len(base), n_tokens, run, at_most=items_per_group(lm, n_tokens, STORED))


class _LayerGroup:
    """The changed runs of some pairs, prompts `items` of the batch, that share their baselines."""

    def __init__(  # noqa: PLR0913  the parts of one question
        self,
        lm: LanguageModel,
        pairs: tuple[Batch, Batch],
        items: Tensor,
        readout: Readout,
        where: ReadRows,
        site: LayerSite,
        places: Tensor,
    ) -> None:
        self.lm = lm
        self.readout = readout
        self.site = site
        self.items = items
        self.where = where
        self.structure = require_structure(lm)
        base, donor = pairs
        self.base = record_baseline(lm, base, lambda *_: None, with_mlps=True)
        self.donor = record_baseline(lm, donor, lambda *_: None, with_mlps=True)
        self.places = places.repeat(lm.n_layers, 1)  # one set for each layer and place
        layers = torch.arange(lm.n_layers, device=base.ids.device).repeat_interleave(len(places))
        self.mask = torch.zeros(len(layers), lm.n_layers, 1, dtype=torch.bool, device=layers.device)
        self.mask[torch.arange(len(layers)), layers] = True
        states = zip(self._states(self.base), self._states(self.donor), strict=True)
        differs = torch.stack([(old != new).any(dim=2) for old, new in states], dim=1) & base.padding.bool()[:, None]
        first_read = where.positions[items].amin(dim=1) * self.structure.has_plain_cache
        self.units = plan(differs[:, :, None], self.mask, self.places, first_read)

    def run(self, tell: Callable[[int], None]) -> Tensor:
        """Readouts [item layer place]; `tell` hears how many layers are done."""
        rows = take_rows(self.base.hidden, self.items, self.where)
        unchanged = read_hidden(self.lm, self.readout, rows, self.items, self.where)
        result, n_positions = unchanged.repeat(len(self.places)), self.base.batch.ids.shape[1]
        for layer in range(self.lm.n_layers):
            for which, prefix in same_start(self.units, layer, n_positions):
                units = self.units.take(which)

                def run(some: slice, layer: int = layer, prefix: int = prefix, units: Units = units) -> Tensor:
                    return self._run(layer, prefix, units.sets[some], units.items[some])

                n_tokens = tokens_with_prefix(self.lm, n_positions - prefix, prefix)
                result[which] = in_batches(self.lm, len(which), n_tokens, run)
            tell(layer + 1)
        return result.reshape(self.lm.n_layers, -1, len(self.items)).permute(2, 0, 1)

    def _states(self, baseline: Baseline) -> list[Tensor]:
        return baseline.inputs if self.site == "residual" else baseline.mlps

    def _run(self, layer: int, prefix: int, sets: Tensor, local: Tensor) -> Tensor:
        places, positions = self.places[sets, local], torch.arange(prefix, self.base.batch.ids.shape[1])
        here = (places[:, None] < 0) | (places[:, None] == positions.to(places))
        old, new = (self._states(each)[layer][local, prefix:] for each in (self.base, self.donor))
        changed = torch.where(here[:, :, None], new, old)
        is_residual = self.site == "residual"
        run = Restart(
            layer=layer,
            ids=self.base.batch.ids[local, prefix:],
            inputs=changed if is_residual else self.base.inputs[layer][local, prefix:],
            writes={} if is_residual else {layer: self.base.writes[layer][local, prefix:]},
            mlps={} if is_residual else {layer: changed},
            prefix=Prefix(self.base.keys, self.base.values, local, prefix) if prefix else None,
        )
        items = self.items[local]
        hidden = rows_of(restart(self.lm, run), self.where.positions[items] - prefix)
        return read_hidden(self.lm, self.readout, hidden, items, self.where)
