"""The computational graph of a transformer: who may read whom through the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PARTS = ("q", "k", "v")


@dataclass(frozen=True)
class EdgeGraph:
    """Sources write to the residual stream, slots read from it, and an edge is one source as one slot reads it.

    Sources: `input` (what enters the first layer: token and position embeddings), then by layer its heads `a3.h1` and
    its MLP `m3`. Slots: by layer the query, key and value inputs of its heads, `a3.h1<q>`, each part over all heads,
    and its MLP `m3`; last `logits`. The input of a slot is the residual stream before the norm, so that the norm
    belongs to the slot.

    is_parallel: by layer, whether the MLP reads what enters the layer and not its heads. n_kv_heads: key and value
    slots a layer. n_heads of them, the default, is the ungrouped graph, in which every query head has key and value
    slots of its own though the weights are shared; fewer are the grouped graph, one slot for each shared head.
    has_mlps: False for models of attention alone. Source: METHODS 6b; Hanna et al. 2024.
    """

    n_heads: int
    n_kv_heads: int
    is_parallel: tuple[bool, ...]
    has_mlps: bool = True

    @classmethod
    def sized(
        cls,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        *,
        is_parallel: bool = False,
        has_mlps: bool = True,
    ) -> EdgeGraph:
        """The graph of a model whose layers are alike, from its sizes alone; ungrouped unless n_kv_heads is given."""
        return cls(n_heads, n_kv_heads or n_heads, (is_parallel,) * n_layers, has_mlps)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.is_parallel)

    @property
    def n_sources(self) -> int:
        """Input, heads and MLPs."""
        return 1 + self.n_layers * self._n_nodes

    @property
    def n_slots(self) -> int:
        """Query, key and value inputs, MLP inputs and the logits."""
        return 1 + self.n_layers * self._n_layer_slots

    @property
    def n_edges(self) -> int:
        """Pairs of a source and a slot that comes after it."""
        return int(self.legal.sum())

    @cached_property
    def legal(self) -> Tensor:
        """Which pairs are edges: [source slot] bool."""
        written, read = [0], []
        for layer, is_parallel in enumerate(self.is_parallel):
            start = 2 * layer + 1
            written += [start] * self.n_heads + [start + 1] * self.has_mlps
            read += [start] * self._n_head_slots + [start + (not is_parallel)] * self.has_mlps
        read.append(2 * self.n_layers + 1)
        return torch.tensor(written)[:, None] < torch.tensor(read)

    @cached_property
    def feeds(self) -> Tensor:
        """Which slots a source is computed from: [slot source] bool; no source is computed from the logits."""
        found = torch.zeros(self.n_slots, self.n_sources, dtype=torch.bool)
        n_shared = self.n_heads // self.n_kv_heads
        for layer in range(self.n_layers):
            for head in range(self.n_heads):
                slots = [self.slot_of_head(layer, part, head if part == "q" else head // n_shared) for part in PARTS]
                found[slots, self.source_of_head(layer, head)] = True
            if self.has_mlps:
                found[self.slot_of_mlp(layer), self.source_of_mlp(layer)] = True
        return found

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in their order."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"] * self.has_mlps
        return tuple(names)

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots, in their order."""
        names: list[str] = []
        for layer in range(self.n_layers):
            for part in PARTS:
                names += [f"a{layer}.h{head}<{part}>" for head in range(self._n_heads_of(part))]
            names += [f"m{layer}"] * self.has_mlps
        return (*names, "logits")

    def source_of_head(self, layer: int, head: int) -> int:
        """Index of a head among the sources."""
        return 1 + layer * self._n_nodes + head

    def source_of_mlp(self, layer: int) -> int:
        """Index of an MLP among the sources."""
        return layer * self._n_nodes + self._n_nodes

    def slot_of_head(self, layer: int, part: str, head: int) -> int:
        """Index of the query, key or value input of a head among the slots."""
        before = sum(self._n_heads_of(each) for each in PARTS[: PARTS.index(part)])
        return layer * self._n_layer_slots + before + head

    def slot_of_mlp(self, layer: int) -> int:
        """Index of the input of an MLP among the slots."""
        return layer * self._n_layer_slots + self._n_head_slots

    def layer_of_slot(self, slot: int) -> int:
        """The layer that a slot is in; for the logits, how many layers there are."""
        return slot // self._n_layer_slots

    def head_sources(self, layer: int) -> slice:
        """The heads of a layer among the sources; what comes before them is what they may read."""
        return slice(self.source_of_head(layer, 0), self.source_of_head(layer, self.n_heads))

    def head_slots(self, layer: int) -> slice:
        """The query, key and value inputs of a layer among the slots."""
        return slice(self.slot_of_head(layer, "q", 0), self.slot_of_mlp(layer))

    def readers(self, place: int) -> tuple[int, slice]:
        """Of a place among the head slots of a layer: which of PARTS it is, and the query heads that read it."""
        for part, name in enumerate(PARTS):
            n_slots = self._n_heads_of(name)
            if place < n_slots:
                n_shared = self.n_heads // n_slots
                return part, slice(place * n_shared, (place + 1) * n_shared)
            place -= n_slots
        raise IndexError(place)

    def edge_names(self, edges: Sequence[tuple[int, int]]) -> list[str]:
        """Edges (source, slot) by name: `a0.h3->a1.h2<k>`."""
        return [f"{self.sources[source]}->{self.slots[slot]}" for source, slot in edges]

    def _n_heads_of(self, part: str) -> int:
        return self.n_heads if part == "q" else self.n_kv_heads

    @property
    def _n_nodes(self) -> int:
        """Sources of one layer."""
        return self.n_heads + self.has_mlps

    @property
    def _n_head_slots(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads

    @property
    def _n_layer_slots(self) -> int:
        return self._n_head_slots + self.has_mlps
