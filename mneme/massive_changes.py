"""Runs a model with its largest activations changed at one layer, and with as many others changed instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import Site, capture
from mneme.errors import NotApplicable
from mneme.massive import emergence_layer, largest
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.restart import Restart, restart
from mneme.scoring import scores_of_hidden

CHANGES = (
    "massive_set_to_zero",
    "massive_set_to_mean",
    "random_set_to_zero",
    "random_set_to_mean",
    "elsewhere_set_to_zero",
)


@dataclass(frozen=True)
class _Cells:
    """Numbers of some prompts' streams: positions and dimensions [item k] int64."""

    positions: Tensor
    dimensions: Tensor

    def of(self, states: Tensor) -> Tensor:
        """The numbers of states [item position width] at these cells: [item k]."""
        items = torch.arange(len(states), device=states.device)[:, None]
        return states[items, self.positions, self.dimensions]

    def put(self, states: Tensor, values: Tensor) -> Tensor:
        """The states with these cells set to values [item k]."""
        changed = states.clone()
        items = torch.arange(len(states), device=states.device)[:, None]
        changed[items, self.positions, self.dimensions] = values.to(changed)
        return changed

    def first(self, k: int) -> _Cells:
        """The first k cells of each prompt."""
        return _Cells(self.positions[:, :k], self.dimensions[:, :k])


@dataclass(frozen=True)
class Changes:
    """Prompts, the layer at whose input they are changed, and the mean [position width] of its input over prompts."""

    lm: LanguageModel
    batch: Batch
    layer: int
    means: Tensor

    @classmethod
    def of(cls, lm: LanguageModel, batch: Batch, layer: int | None) -> Changes:
        """The changes at a layer; None = where the largest activation rises most, mean over prompts.

        Raises: NotApplicable for a model of one layer.
        """
        if lm.n_layers < 2:
            raise NotApplicable(f"{lm.name} has one layer, and activations are changed between two")
        n_tokens = batch.ids.shape[1]
        if layer is None:

            def tops(items: slice) -> Tensor:
                part = batch.select(items)
                return largest(capture(lm, part, ["residual"])["residual"], part.padding, 1).values[..., 0]

            layer = emergence_layer(in_batches(lm, len(batch), n_tokens, tops).mean(dim=0))
        total = torch.zeros(n_tokens, lm.d_model, dtype=torch.float64, device=batch.ids.device)

        def add(items: slice) -> Tensor:
            part = batch.select(items)
            states = _entering(lm, part, layer).double() * part.padding[:, :, None]
            total[: states.shape[1]] += states.sum(dim=0)
            return part.lengths

        in_batches(lm, len(batch), n_tokens, add)
        return cls(lm, batch, layer, total / batch.padding.sum(dim=0)[:, None].clamp_min(1))

    @torch.no_grad()
    def losses(self, most: int, sizes: list[int], seed: int, progress: Progress = silent) -> Tensor:
        """Rise of the loss for each of `CHANGES` and number of cells: [item change size] nats, float32."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(len(self.batch), self.lm.d_model + self.batch.ids.shape[1], generator=generator)

        def run(items: slice) -> Tensor:
            part = self.batch.select(items)
            states = _entering(self.lm, part, self.layer)
            order = drawn[items].to(states.device)
            cells = _cells(states, part, most, order)
            clean = self._loss(part, states)
            found = torch.zeros(len(part), len(CHANGES), len(sizes))
            for column, k in enumerate(sizes):
                for place, changed in enumerate(self._changed(states, cells, k)):
                    found[:, place, column] = (self._loss(part, changed) - clean).cpu()
            return found

        return in_batches(self.lm, len(self.batch), self.batch.ids.shape[1], run, progress)

    def _changed(self, states: Tensor, cells: tuple[_Cells, _Cells, _Cells], k: int) -> list[Tensor]:
        """The states with k cells changed in each of the ways of `CHANGES`."""
        massive, random, elsewhere = (each.first(k) for each in cells)
        means = self.means[None, : states.shape[1]].expand(len(states), -1, -1)
        nothing = torch.zeros_like(massive.positions)
        return [
            massive.put(states, nothing),
            massive.put(states, massive.of(means)),
            random.put(states, nothing),
            random.put(states, random.of(means)),
            elsewhere.put(states, nothing),
        ]

    def _loss(self, part: Batch, states: Tensor) -> Tensor:
        hidden = restart(self.lm, Restart(self.layer, part.ids, states))
        log_prob, _ = scores_of_hidden(self.lm, hidden, part)
        return -log_prob.nanmean(dim=1)


def _entering(lm: LanguageModel, part: Batch, layer: int) -> Tensor:
    return capture(lm, part, [Site("residual", layers=(layer,))])["residual"][:, 0]


def _cells(states: Tensor, part: Batch, k: int, drawn: Tensor) -> tuple[_Cells, _Cells, _Cells]:
    """The k largest cells; others of the same tokens, no dimension twice; the same dimensions of other tokens.

    drawn [item width + position] in 0 .. 1 says which others: the lowest numbers that are free.
    """
    top = largest(states[:, None], part.padding, k)
    massive = _Cells(top.positions[:, 0], top.dimensions[:, 0])
    width = states.shape[-1]
    by_dimension = drawn[:, :width].scatter(1, massive.dimensions, torch.inf)
    random = replace(massive, dimensions=by_dimension.argsort(dim=1)[:, :k])
    by_position = drawn[:, width : width + states.shape[1]].masked_fill(part.padding == 0, 2.0)
    by_position = by_position.scatter(1, massive.positions, 1.5)  # its own tokens only where there is no other
    return massive, random, replace(massive, positions=by_position.argsort(dim=1)[:, :1].expand(-1, k))
