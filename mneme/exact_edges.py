"""Exact edge scores: the model run once for every edge asked for, that edge alone carrying the corrupt value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mneme.batching import in_batches, items_per_forward
from mneme.capturing import head_weights, require_structure
from mneme.cut_forward import once_per_head, ungrouped
from mneme.edge_gradients import Pairs
from mneme.edge_graph import PARTS
from mneme.layer_runs import attention_call, heads_write, leaving, mlp_write, read_stream
from mneme.readouts import read_hidden, take_rows
from mneme.restart import Restart, restart
from mneme.source_changes import SourceChanges, exactly


class ExactEdges:
    """Some pairs under single edges: the change is added to what a slot reads, and the rest of the run follows from it.

    Cells, one edge each, are stacked on the batch axis and restart at the slot's layer. where [item position] bool:
    the positions at which edges carry the change; None = all.
    """

    def __init__(self, pairs: Pairs, where: Tensor | None = None) -> None:
        self.pairs = pairs
        self.lm, self.graph = pairs.question.lm, pairs.question.graph
        self.ids = pairs.clean.batch.ids
        changes = SourceChanges.between(self.lm, pairs.clean, pairs.corrupt)
        every, written = slice(None), [changes.of_input(slice(None))]
        for layer, output in enumerate(pairs.clean.writes):
            written += [changes.of_heads(layer, every, exactly(self.lm, layer, output)), changes.of_mlp(layer, every)]
        self.written = torch.cat(written, dim=1).transpose(0, 1)  # [source item position d_model]
        if where is not None:
            self.written = self.written * where[:, :, None]

    def scores(self, edges: Tensor | None = None) -> Tensor:
        """Change of the readout under each edge: [item source slot], 0 where there is no edge.

        edges [source slot] bool: run these alone, and leave 0 elsewhere.
        """
        clean = self.pairs.read(self.pairs.clean)
        wanted = self.graph.legal if edges is None else self.graph.legal & edges.cpu()
        found = clean[:, None, None].repeat(1, self.graph.n_sources, self.graph.n_slots)

        def fill(slots: slice, run: Callable[[Tensor], Tensor]) -> None:
            cells = wanted[:, slots].nonzero().to(self.ids.device)
            if len(cells):
                found[:, cells[:, 0], slots.start + cells[:, 1]] = run(cells)

        for layer in range(self.lm.n_layers):
            fill(self.graph.head_slots(layer), partial(self._into_heads, layer))
            slot = self.graph.slot_of_mlp(layer)
            fill(slice(slot, slot + 1), partial(self._into_mlp, layer))
        fill(slice(self.graph.n_slots - 1, self.graph.n_slots), self._into_logits)
        return found - clean[:, None, None]

    def _into_heads(self, layer: int, cells: Tensor) -> Tensor:
        """Readouts with the query, the key or the value input of a head changed by a source: [item cell].

        cells [cell 2]: the source, and the slot among those of the layer's heads. As many as fill a forward at a time.
        """
        size = max(1, items_per_forward(self.lm, self.ids.shape[1]) // len(self.ids))
        entering, writes = self.pairs.clean.inputs[layer], self.pairs.clean.writes[layer]
        found = []
        for some in torch.split(cells, size):
            changes = self._head_changes(layer, some)

            def run(places: Tensor, local: Tensor, changes: Tensor = changes) -> Tensor:
                given = {layer: writes[local] + changes[places, local]}
                return self._finish(Restart(layer, self.ids[local], entering[local], given), local)

            found.append(self._stacked(len(some), run))
        return torch.cat(found, dim=1)

    def _head_changes(self, layer: int, cells: Tensor) -> Tensor:
        """What the attention module returns more when a slot reads a changed source: [cell item position d_model]."""
        entering = self.pairs.clean.inputs[layer]
        call = attention_call(self.lm, layer, self.ids, entering)
        clean = once_per_head(call)
        before = ungrouped(call, clean).compute()
        weights = head_weights(self.lm, require_structure(self.lm).parts[layer])
        found = entering.new_empty(len(cells), *entering.shape)
        readers = [self.graph.readers(slot) for slot in cells[:, 1].tolist()]
        for source in sorted(set(cells[:, 0].tolist())):
            changed = once_per_head(attention_call(self.lm, layer, self.ids, entering + self.written[source]))
            here = (cells[:, 0] == source).nonzero()[:, 0].tolist()
            for part in {readers[place][0] for place in here}:
                query, key, value = (changed[each] if each == part else clean[each] for each in range(len(PARTS)))
                z = ungrouped(call, (query, key, value)).compute() - before
                for place in here:
                    if readers[place][0] == part:
                        heads = readers[place][1]
                        found[place] = torch.einsum("iphw,hwd->ipd", z[:, :, heads], weights[heads])
        return found

    def _into_mlp(self, layer: int, cells: Tensor) -> Tensor:
        """Readouts with the input of an MLP changed by a source: [item cell], cells [cell 2], the source first."""
        clean = self.pairs.clean
        middle = clean.inputs[layer]
        if not self.graph.is_parallel[layer]:
            middle = middle + heads_write(self.lm, layer, clean.writes[layer])
        rest = leaving(self.lm, clean, layer) - mlp_write(self.lm, layer, self.ids, middle)

        def run(places: Tensor, local: Tensor) -> Tensor:
            states = middle[local] + self.written[cells[places, 0], local]
            stream = rest[local] + mlp_write(self.lm, layer, self.ids[local], states)
            return self._after(layer, stream, local)

        return self._stacked(len(cells), run)

    def _into_logits(self, cells: Tensor) -> Tensor:
        """Readouts with what leaves the last layer changed by a source: [item cell], cells [cell 2]."""
        last = self.lm.n_layers - 1
        stream = leaving(self.lm, self.pairs.clean, last)
        return self._stacked(
            len(cells),
            lambda places, local: self._after(last, stream[local] + self.written[cells[places, 0], local], local),
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
