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
from mneme.head_entries import HeadEntry
from mneme.layer_runs import leaving, read_stream
from mneme.model import LanguageModel
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows
from mneme.restart import Baseline, Restart, record_baseline
from mneme.slot_gradients import LayerGradients, sweep
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

    A run's `share` is how far it lies from the corrupt run (0) on the way to the clean one (1).
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.lm, self.graph = pairs.question.lm, pairs.question.graph
        self.changes = SourceChanges.between(self.lm, pairs.clean, pairs.corrupt)
        self.watched = [entry.modules for entry in pairs.question.entries]
        n_items = len(pairs.items)
        dtype = torch.float64 if self.lm.dtype == torch.float64 else torch.float32
        self.scores = torch.zeros(n_items, self.graph.n_sources, self.graph.n_slots, dtype=dtype, device=self.lm.device)

    def at_inputs(self, share: float, weight: float) -> None:
        """Add `weight` times the scores of all sources, with the gradients of a run whose embeddings are between."""
        run = cut_forward(self.lm, Restart(0, self._ids, self._between_streams(share)), self.watched)
        layers, final = self._gradients(run)
        sources: list[Writes] = [self.changes.of_input]
        for layer, found in enumerate(layers):
            sources += [self._heads(layer, found.output), self._mlp(layer)]
        self._add(0, layers, final, sources, weight)

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
        return sweep(self.lm, question.entries, run, final), final

    def _add(
        self, start: int, layers: Sequence[LayerGradients], final: Tensor, sources: Sequence[Writes], weight: float
    ) -> None:
        """Add the scores of neighbouring sources, the first of which is `start`, at the last layers' slots."""
        first = self.lm.n_layers - len(layers)
        for some in self._chunks(final.shape[1], len(final)):
            writes = weight * torch.cat([widened(make(some)) for make in sources], dim=1).flatten(2)
            for layer, found in enumerate(layers, first):
                slots = (
                    [found.mlp[:, None, some]]
                    if found.heads is None
                    else [found.heads.at(some), found.mlp[:, None, some]]
                )
                end = self.graph.slot_of_mlp(layer) + 1
                n_before = min(self.graph.head_sources(layer).stop - start, writes.shape[1])
                gradients = widened(torch.cat(slots, dim=1)).flatten(2)
                into = self.scores[:, start : start + n_before, end - gradients.shape[1] : end]
                into += writes[:, :n_before] @ gradients.transpose(1, 2)
            self.scores[:, start : start + writes.shape[1], -1] += (
                writes @ widened(final[:, some]).flatten(1)[:, :, None]
            )[..., 0]

    def _chunks(self, n_positions: int, n_items: int) -> Iterator[slice]:
        """Positions whose writes, and whose gradients at one layer's slots, fit in CHUNK_ELEMENTS."""
        per_position = n_items * self.lm.d_model * (self.graph.n_sources + 4 * (3 * self.graph.n_heads + 1))
        size = max(1, CHUNK_ELEMENTS // per_position)
        for start in range(0, n_positions, size):
            yield slice(start, min(start + size, n_positions))
