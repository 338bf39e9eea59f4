"""Edge scores from gradients: what each source changes, times the gradient at each slot, for some pairs of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.cut_forward import CutRun, cut_forward
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput
from mneme.head_entries import HeadEntry, find_entries
from mneme.layer_runs import leaving, read_stream
from mneme.model import LanguageModel
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, record_baseline
from mneme.slot_gradients import LayerGradients, summed, sweep
from mneme.source_changes import SourceChanges, linearly
from mneme.unembedding import widened

CHUNK_ELEMENTS = 1 << 25  # writes of sources and gradients of slots in memory at once: 128 MiB in float32

Writes = Callable[[slice], Tensor]


@dataclass(frozen=True)
class Question:
    """What is asked of all pairs: a model with its entries and graph, a readout and where it reads."""

    lm: LanguageModel
    entries: Sequence[HeadEntry]
    graph: EdgeGraph
    readout: Readout
    where: ReadRows

    @classmethod
    def of(cls, lm: LanguageModel, readout: Readout, batch: Batch, *, is_grouped: bool = False) -> Question:
        """The question of a readout over a batch; finds the entries by running the model on a few tokens.

        is_grouped: one key and one value slot for the query heads that share them, and not one for each.
        """
        entries = find_entries(lm)
        n_kv_heads = lm.n_kv_heads if is_grouped else lm.n_heads
        graph = EdgeGraph(lm.n_heads, n_kv_heads, tuple(entry.is_parallel for entry in entries))
        return cls(lm, entries, graph, readout, ReadRows.of(readout, batch))


@dataclass(frozen=True)
class Pairs:
    """Some pairs, prompts `items` of the batch, and what their clean and their corrupt run left behind."""

    question: Question
    items: Tensor
    clean: Baseline
    corrupt: Baseline

    @classmethod
    def of(cls, question: Question, items: Tensor, clean: Batch, corrupt: Batch) -> Pairs:
        """Run both."""
        both = [record_baseline(question.lm, each, lambda *_: None, with_mlps=True) for each in (clean, corrupt)]
        return cls(question, items, both[0], both[1])

    def read(self, baseline: Baseline) -> Tensor:
        """The readout of one of the two runs: [item]."""
        rows = take_rows(baseline.hidden, self.items, self.question.where)
        return read_hidden(self.question.lm, self.question.readout, rows, self.items, self.question.where)


class EdgeGradients:
    """Scores of all edges of some pairs, from gradients of runs between the corrupt and the clean one.

    A run's `share` is how far it lies from the corrupt run (0) on the way to the clean one (1). places [place item]:
    positions whose part of the scores is summed over the items as well, -1 = none in this prompt.
    """

    def __init__(self, pairs: Pairs, places: Tensor | None = None) -> None:
        self.pairs = pairs
        self.lm, self.graph = pairs.question.lm, pairs.question.graph
        self.changes = SourceChanges.between(self.lm, pairs.clean, pairs.corrupt)
        self.watched = [entry.modules for entry in pairs.question.entries]
        n_items = len(pairs.items)
        dtype = torch.float64 if self.lm.dtype == torch.float64 else torch.float32
        shape = self.graph.n_sources, self.graph.n_slots
        self.scores = torch.zeros(n_items, *shape, dtype=dtype, device=self.lm.device)
        self.places = torch.empty(0, n_items, dtype=torch.int64, device=self.lm.device) if places is None else places
        self.by_place = torch.zeros(len(self.places), *shape, dtype=dtype, device=self.lm.device)

    def at_inputs(self, runs: Sequence[float]) -> None:
        """Add the mean scores of all sources, with the gradients of runs whose embeddings are between; shares [run].

        What sources change is the same in all runs, unless a norm follows the heads: then gradients are summed first.
        To be called once: what else the clean and the corrupt run left behind is let go.
        """
        _let_go(self.pairs.clean)
        _let_go(self.pairs.corrupt)
        has_norms = any(entry.post_norm is not None for entry in self.pairs.question.entries)
        total: list[LayerGradients] = []
        finals, weight = [], 1 / len(runs)
        for share in runs:
            run = cut_forward(self.lm, Restart(0, self._ids, self._between_streams(share)), self.watched)
            layers, final = self._gradients(run)
            if has_norms:
                self._add(0, layers, final, self._sources(layers), weight)
            else:
                total = summed([total, layers], [1.0, weight]) if total else summed([layers], [weight])
                finals.append(final)
        if not has_norms:
            self._add(0, total, torch.stack(finals).mean(dim=0), self._sources(total))

    def at_activations(self, share: float, weight: float) -> None:
        """Add `weight` times the scores of each layer's heads, of each MLP and of the input, from a run for each.

        Between the clean and the corrupt run lies, in each, what these sources write; all before them is clean.
        """
        run = cut_forward(self.lm, Restart(0, self._ids, self._between_streams(share)), self.watched)
        self._add(0, *self._gradients(run), [self.changes.of_input], weight)
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        for layer in range(self.lm.n_layers):
            output = torch.lerp(corrupt.writes[layer], clean.writes[layer], share)
            start = Restart(layer, self._ids, clean.inputs[layer], writes={layer: output})
            found, final = self._gradients(cut_forward(self.lm, start, self.watched))
            self._add(self.graph.source_of_head(layer, 0), found, final, [self._heads(layer, output)], weight)
            stream = leaving(self.lm, clean, layer) + (1 - share) * self.changes.mlps[layer]
            run = CutRun(layer + 1, [], stream)
            if layer + 1 < self.lm.n_layers:
                run = cut_forward(self.lm, Restart(layer + 1, self._ids, stream), self.watched)
            self._add(self.graph.source_of_mlp(layer), *self._gradients(run), [self._mlp(layer)], weight)

    @property
    def _ids(self) -> Tensor:
        return self.pairs.clean.batch.ids

    def _between_streams(self, share: float) -> Tensor:
        return torch.lerp(self.pairs.corrupt.inputs[0], self.pairs.clean.inputs[0], share)

    def _sources(self, layers: Sequence[LayerGradients]) -> list[Writes]:
        """What all sources change, where the attention modules return what they did in a run."""
        sources: list[Writes] = [self.changes.of_input]
        for layer, found in enumerate(layers):
            sources += [self._heads(layer, found.output), self._mlp(layer)]
        return sources

    def _heads(self, layer: int, output: Tensor) -> Writes:
        def writes(some: slice) -> Tensor:
            return self.changes.of_heads(layer, some, linearly(self.lm, layer, output[:, some]))

        return writes

    def _mlp(self, layer: int) -> Writes:
        return lambda some: self.changes.of_mlp(layer, some)

    def _gradients(self, run: CutRun) -> tuple[list[LayerGradients], Tensor]:
        """Gradients at the slots of a run's layers, and at the logits' [item position d_model]."""
        question = self.pairs.question
        stream = run.leaving.detach().requires_grad_()
        with torch.enable_grad():
            values = read_stream(self.lm, self._ids, stream, question.readout, self.pairs.items, question.where)
        if not values.requires_grad:
            raise BadInput(f"readout {question.readout.name} has no gradient: use one that varies smoothly, or 'exact'")
        final = torch.autograd.grad(values, stream, torch.ones_like(values))[0]
        is_grouped = self.graph.n_kv_heads < self.graph.n_heads
        return sweep(self.lm, question.entries, run, final, is_grouped=is_grouped), final

    def _add(
        self,
        start: int,
        layers: Sequence[LayerGradients],
        final: Tensor,
        sources: Sequence[Writes],
        weight: float = 1.0,
    ) -> None:
        """Add the scores of neighbouring sources, the first of which is `start`, at the last layers' slots."""
        first = self.lm.n_layers - len(layers)
        for some in self._chunks(final.shape[1], len(final)):
            writes = torch.cat([widened(make(some)) for make in sources], dim=1)

            def into(slots: slice, n_before: int, at: Tensor, writes: Tensor = writes, some: slice = some) -> None:
                gradients, taken = widened(at), writes[:, : max(0, n_before - start)]
                products = taken.flatten(2) @ gradients.flatten(2).transpose(1, 2)
                self.scores[:, start : start + taken.shape[1], slots] += weight * products
                for place, rows in self._of_places(some, taken, gradients):
                    self.by_place[place, start : start + taken.shape[1], slots] += weight * rows

            for layer, found in enumerate(layers, first):
                here, slot = self.graph.head_sources(layer), self.graph.slot_of_mlp(layer)
                if found.heads is not None:
                    into(self.graph.head_slots(layer), here.start, found.heads.at(some))
                into(slice(slot, slot + 1), here.stop, found.mlp[:, None, some])
            into(slice(-1, None), self.graph.n_sources, final[:, None, some])

    def _of_places(self, some: slice, writes: Tensor, gradients: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The part of each place among some positions, summed over the items: pairs of (place, [source slot])."""
        for place, positions in enumerate(self.places):
            items = ((positions >= some.start) & (positions < some.stop)).nonzero()[:, 0]
            if len(items):
                at = positions[items] - some.start
                yield place, torch.einsum("nsd,ntd->st", writes[items, :, at], gradients[items, :, at])

    def _chunks(self, n_positions: int, n_items: int) -> Iterator[slice]:
        """Positions whose writes, and whose gradients at one layer's slots, fit in CHUNK_ELEMENTS."""
        per_position = n_items * self.lm.d_model * (self.graph.n_sources + 4 * (3 * self.graph.n_heads + 1))
        size = max(1, CHUNK_ELEMENTS // per_position)
        for start in range(0, n_positions, size):
            yield slice(start, min(start + size, n_positions))


def _let_go(baseline: Baseline) -> None:
    """Keep of a run what enters its first layer and what leaves its last."""
    del baseline.inputs[1:]
    for states in (baseline.z, baseline.keys, baseline.values, baseline.writes, baseline.mlps):
        states.clear()
