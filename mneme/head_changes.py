"""Runs many changed versions of the same prompts, each with some heads replaced, restarting at the first change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group, tokens_with_prefix
from mneme.capturing import require_structure
from mneme.change_plan import plan, same_start
from mneme.errors import BadInput
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.prefix_cache import Prefix
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, next_inputs, record_baseline, restart, restart_rows, rows_of

STORED = 6  # tensors a layer that are kept of each prompt: the baseline's and what replaces its heads

HeadSet = Sequence[tuple[int, int]]
Replacement = Callable[[AttentionCall, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class HeadChanges:
    """Replace the heads of each set, a sequence of (layer, head), together; an empty set changes nothing.

    prepare(items [n]) gives the replacement of a group of prompts: (call, z [unit position head width], local [unit])
    -> what Z becomes [unit position head width], for all heads; local are places in the group.
    places [set item] int64: the one position that a set changes in a prompt, -1 = all; None = all everywhere.
    """

    sets: Sequence[HeadSet]
    prepare: Callable[[Tensor], Replacement]
    places: Tensor | None = None


def check_sets(lm: LanguageModel, sets: Sequence[HeadSet]) -> None:
    """Refuse heads that do not exist, with BadInput."""
    for layer, head in (each for heads in sets for each in heads):
        if not (0 <= layer < lm.n_layers and 0 <= head < lm.n_heads):
            raise BadInput(
                f"head ({layer}, {head}) does not exist: {lm.name} has layers 0..{lm.n_layers - 1} "
                f"and heads 0..{lm.n_heads - 1}"
            )


def run_changes(
    lm: LanguageModel, batch: Batch, readout: Readout, changes: HeadChanges, progress: Progress = silent
) -> Tensor:
    """The readout of every prompt under every change: [item set].

    Exact: equal to a full forward with the heads replaced. Prompts go in groups whose stored activations fit in
    memory; within a group, sets that start at one layer are stacked on the batch axis. BadInput for a bad readout.
    """
    check_sets(lm, changes.sets)
    where = ReadRows.of(readout, batch)
    n_tokens, n_sets = batch.ids.shape[1], len(changes.sets)

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=batch.ids.device)
        group = _Group(lm, batch, items, readout, where, changes)
        return group.run(_Later(progress, some.start * n_sets, len(batch) * n_sets))

    return in_batches(lm, len(batch), n_tokens, run, at_most=items_per_group(lm, n_tokens, STORED))


@dataclass(frozen=True)
class _Later:
    """Progress of one group, told as progress of them all."""

    progress: Progress
    before: int
    in_all: int

    def __call__(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  the group's own total
        """Take note of `done` in this group."""
        self.progress(self.before + done, self.in_all, note)


class _Group:
    """The changed runs of some prompts that share one baseline."""

    def __init__(
        self, lm: LanguageModel, batch: Batch, items: Tensor, readout: Readout, where: ReadRows, changes: HeadChanges
    ) -> None:
        self.lm = lm
        self.items = items
        self.readout = readout
        self.where = where
        self.structure = require_structure(lm)
        self.mask = _mask(lm, changes.sets).to(items.device)
        self.replacement = changes.prepare(items)
        self.replaced: list[Tensor] = []
        self.baseline = self._record(batch.select(slice(int(items[0]), int(items[-1]) + 1)))
        every = torch.full((1, 1), -1, device=items.device).expand(len(changes.sets), len(items))
        self.places = every if changes.places is None else changes.places.to(items.device)[:, items]
        first_read = where.positions[items].amin(dim=1) * self.structure.has_plain_cache
        self.units = plan(self._differs(), self.mask, self.places, first_read)

    def run(self, progress: Progress) -> Tensor:
        """Readouts [item set]."""
        n_sets, n_units = len(self.mask), len(self.units.sets)
        result = self._unchanged().repeat(n_sets)
        n_positions = self.baseline.batch.ids.shape[1]
        done = int((self.units.layer == self.lm.n_layers).sum())
        for layer in range(self.lm.n_layers):
            for which, prefix in same_start(self.units, layer, n_positions):
                result[which] = self._run_start(layer, prefix, which)
                done += len(which)
                progress(done, n_units)
        progress(n_units, n_units)
        return result.reshape(n_sets, -1).T

    def _record(self, batch: Batch) -> Baseline:
        local = torch.arange(len(self.items), device=self.items.device)
        involved = self.mask.any(dim=2).any(dim=0)

        def note(call: AttentionCall, z: Tensor) -> None:
            now = self.replacement(call, z, local).expand_as(z) if bool(involved[call.layer]) else z
            self.replaced.append(now)

        return record_baseline(self.lm, batch, note)

    def _differs(self) -> Tensor:
        """Where, at real positions, a replacement is not what is there: [item layer head position] bool."""
        pairs = zip(self.replaced, self.baseline.z, strict=True)
        differs = torch.stack([(new != old).any(dim=3).transpose(1, 2) for new, old in pairs], dim=1)
        return differs & self.baseline.batch.padding.bool()[:, None, None, :]

    def _unchanged(self) -> Tensor:
        rows = take_rows(self.baseline.hidden, self.items, self.where)
        return read_hidden(self.lm, self.readout, rows, self.items, self.where)

    def _run_start(self, layer: int, prefix: int, which: Tensor) -> Tensor:
        """Readouts of units that start at one layer, positions before `prefix` taken from the baseline: [unit]."""
        n_tokens = self.baseline.batch.ids.shape[1] - prefix
        units = self.units.take(which)
        return in_batches(
            self.lm,
            len(which),
            tokens_with_prefix(self.lm, n_tokens, prefix),
            lambda some: self._run_units(layer, prefix, units.sets[some], units.items[some]),
        )

    def _run_units(self, layer: int, prefix: int, sets: Tensor, local: Tensor) -> Tensor:
        items, last = self.items[local], self.lm.n_layers - 1
        rows = self.where.positions[items] - prefix
        chosen = self._chosen(sets, local, prefix)
        run = self._started(layer, prefix, sets, local)
        if last in run.writes:
            inputs, write = (rows_of(each, rows) for each in (run.inputs, run.writes[last]))
            hidden = restart(self.lm, Restart(last, run.ids.gather(1, rows), inputs, {last: write}))
        elif layer < last and 2 * rows.shape[1] <= run.ids.shape[1] and not bool(chosen(last).any()):
            hidden = restart_rows(self.lm, run, rows)
        else:
            hidden = rows_of(restart(self.lm, run), rows)
        return read_hidden(self.lm, self.readout, hidden, items, self.where)

    def _started(self, layer: int, prefix: int, sets: Tensor, local: Tensor) -> Restart:
        """The run of units that start at one layer.

        Where each unit changes a single position, the first layer runs at that position only, and the run starts at the
        next layer: the other positions enter it as they did in the baseline.
        """
        chosen = self._chosen(sets, local, prefix)
        write = self._changed_write(layer, prefix, chosen, local)
        run = Restart(
            layer=layer,
            ids=self.baseline.batch.ids[local, prefix:],
            inputs=self.baseline.inputs[layer][local, prefix:],
            writes={} if write is None else {layer: write},
            prefix=Prefix(self.baseline.keys, self.baseline.values, local, prefix) if prefix else None,
            handler=self._handler(layer, prefix, chosen, local),
        )
        places = self.places[sets, local]
        if write is None or layer == self.lm.n_layers - 1 or bool((places < 0).any()):
            return run
        rows = (places - prefix)[:, None]
        first = Restart(layer, run.ids.gather(1, rows), rows_of(run.inputs, rows), {layer: rows_of(write, rows)})
        entering = self.baseline.inputs[layer + 1][local, prefix:]
        entering[torch.arange(len(local), device=rows.device), rows[:, 0]] = next_inputs(self.lm, first)[:, 0]
        return replace(run, layer=layer + 1, inputs=entering, writes={})

    def _chosen(self, sets: Tensor, local: Tensor, prefix: int) -> Callable[[int], Tensor]:
        """For a layer: which heads are replaced at which positions from `prefix` on [unit position head 1] bool."""
        places = self.places[sets, local]
        positions = torch.arange(prefix, self.baseline.batch.ids.shape[1], device=sets.device)
        here = (places[:, None] < 0) | (places[:, None] == positions)
        return lambda layer: (here[:, :, None] & self.mask[sets, layer][:, None, :])[..., None]

    def _changed_write(self, layer: int, prefix: int, chosen: Callable[[int], Tensor], local: Tensor) -> Tensor | None:
        """What the attention module of the first changed layer returns: + (z' - z) W_O, its attention not run."""
        projection = self.structure.parts[layer].projection
        if projection is None:
            return None
        weight = projection.weight(self.lm.n_heads)
        write = self.baseline.writes[layer][local, prefix:]
        here, new, old = chosen(layer), self.replaced[layer], self.baseline.z[layer]
        heads = here[..., 0].any(dim=1)
        if bool((heads.sum(dim=1) > 1).any()):
            change = (new[local, prefix:] - old[local, prefix:]).masked_fill(~here, 0.0)
            return write + torch.einsum("uthw,hwd->utd", change, weight)
        for head in torch.nonzero(heads.any(dim=0))[:, 0].tolist():
            units = torch.nonzero(heads[:, head])[:, 0]
            change = new[local[units], prefix:, head] - old[local[units], prefix:, head]
            write[units] += change.masked_fill(~here[units, :, head], 0.0) @ weight[head]
        return write

    def _handler(
        self, first: int, prefix: int, chosen: Callable[[int], Tensor], local: Tensor
    ) -> Callable[[AttentionCall], Tensor]:
        def change(call: AttentionCall) -> Tensor:
            here = chosen(call.layer)
            if call.layer == first:
                stored = self.baseline.z[first][local, prefix:]
                return torch.where(here, self.replaced[first][local, prefix:], stored)
            z = call.compute()
            return torch.where(here, self.replacement(call, z, local), z) if bool(here.any()) else z

        return change


def _mask(lm: LanguageModel, sets: Sequence[HeadSet]) -> Tensor:
    """Which heads are in which set: [set layer head] bool."""
    mask = torch.zeros(len(sets), lm.n_layers, lm.n_heads, dtype=torch.bool)
    for place, heads in enumerate(sets):
        for layer, head in heads:
            mask[place, layer, head] = True
    return mask
