"""Exact edge scores: the model run once for every edge, with that edge alone carrying the corrupt value."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mneme.batching import in_batches
from mneme.capturing import head_weights, require_structure
from mneme.cut_forward import once_per_head, ungrouped
from mneme.edge_gradients import Pairs
from mneme.layer_runs import attention_call, heads_write, leaving, mlp_write, read_stream
from mneme.readouts import read_hidden, take_rows
from mneme.restart import Restart, restart
from mneme.source_changes import SourceChanges, exactly


class ExactEdges:
    """Some pairs under every edge: the change is added to what a slot reads, and the rest of the run follows from it.

    Cells, one edge each, are stacked on the batch axis and restart at the slot's layer.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.lm, self.graph = pairs.question.lm, pairs.question.graph
        self.ids = pairs.clean.batch.ids
        changes = SourceChanges.between(self.lm, pairs.clean, pairs.corrupt)
        every, written = slice(None), [changes.of_input(slice(None))]
        for layer, output in enumerate(pairs.clean.writes):
            written += [changes.of_heads(layer, every, exactly(self.lm, layer, output)), changes.of_mlp(layer, every)]
        self.written = torch.cat(written, dim=1).transpose(0, 1)  # [source item position d_model]

    def scores(self) -> Tensor:
        """Change of the readout under each edge: [item source slot], 0 where there is no edge."""
        clean = self.pairs.read(self.pairs.clean)
        found = clean[:, None, None].repeat(1, self.graph.n_sources, self.graph.n_slots)
        for layer in range(self.lm.n_layers):
            for source in range(self.graph.head_sources(layer).start):
                found[:, source, self.graph.head_slots(layer)] = self._into_heads(layer, source)
            slot = self.graph.slot_of_mlp(layer)
            n_before = int(self.graph.legal[:, slot].sum())
            found[:, :n_before, slot] = self._into_mlp(layer, n_before)
        found[..., -1] = self._into_logits()
        return found - clean[:, None, None]

    def _into_heads(self, layer: int, source: int) -> Tensor:
        """Readouts with the query, the key and the value input of each head changed by one source: [item slot]."""
        entering = self.pairs.clean.inputs[layer]
        call = attention_call(self.lm, layer, self.ids, entering)
        clean = once_per_head(call)
        changed = once_per_head(attention_call(self.lm, layer, self.ids, entering + self.written[source]))
        before = ungrouped(call, clean).compute()
        mixed = (changed[0], *clean[1:]), (clean[0], changed[1], clean[2]), (*clean[:2], changed[2])
        z = torch.stack([ungrouped(call, each).compute() - before for each in mixed])  # [part item position head width]
        weights = head_weights(self.lm, require_structure(self.lm).parts[layer])

        def run(cells: Tensor, local: Tensor) -> Tensor:
            part, head = cells // self.lm.n_heads, cells % self.lm.n_heads
            changes = torch.einsum("upw,uwd->upd", z[part, local, :, head], weights[head])
            writes = {layer: self.pairs.clean.writes[layer][local] + changes}
            return self._finish(Restart(layer, self.ids[local], entering[local], writes), local)

        return self._stacked(3 * self.lm.n_heads, run)

    def _into_mlp(self, layer: int, n_sources: int) -> Tensor:
        """Readouts with the input of an MLP changed by each of the first sources: [item source]."""
        clean = self.pairs.clean
        middle = clean.inputs[layer]
        if not self.graph.is_parallel[layer]:
            middle = middle + heads_write(self.lm, layer, clean.writes[layer])
        rest = leaving(self.lm, clean, layer) - mlp_write(self.lm, layer, self.ids, middle)

        def run(cells: Tensor, local: Tensor) -> Tensor:
            states = middle[local] + self.written[cells, local]
            stream = rest[local] + mlp_write(self.lm, layer, self.ids[local], states)
            return self._after(layer, stream, local)

        return self._stacked(n_sources, run)

    def _into_logits(self) -> Tensor:
        """Readouts with what leaves the last layer changed by each source: [item source]."""
        last = self.lm.n_layers - 1
        stream = leaving(self.lm, self.pairs.clean, last)
        return self._stacked(
            self.graph.n_sources,
            lambda cells, local: self._after(last, stream[local] + self.written[cells, local], local),
        )

    def _after(self, layer: int, stream: Tensor, local: Tensor) -> Tensor:
        """Readouts when `stream` leaves a layer: [unit]."""
        ids, question = self.ids[local], self.pairs.question
        if layer == self.lm.n_layers - 1:
            return read_stream(self.lm, ids, stream, question.readout, self.pairs.items[local], question.where)
        return self._finish(Restart(layer + 1, ids, stream), local)

    def _finish(self, run: Restart, local: Tensor) -> Tensor:
        question, items = self.pairs.question, self.pairs.items[local]
        rows = take_rows(restart(self.lm, run), items, question.where)
        return read_hidden(self.lm, question.readout, rows, items, question.where)

    def _stacked(self, n_cells: int, run: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What `run` makes of units (cell, place among the items): [item cell]."""
        n_items = len(self.pairs.items)

        def part(some: slice) -> Tensor:
            units = torch.arange(some.start, some.stop, device=self.ids.device)
            return run(units // n_items, units % n_items)

        return in_batches(self.lm, n_cells * n_items, self.ids.shape[1], part).reshape(n_cells, n_items).T
