"""Circuits: the edges of a graph that are kept, found from edge scores and pruned until every node lies on a path."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.edge_graph import PARTS, EdgeGraph
from mneme.edge_scoring import EdgeScores
from mneme.errors import BadInput

SearchMethod = Literal["top-n", "greedy"]


@dataclass(frozen=True)
class Circuit:
    """Kept edges [source slot] bool of a graph; n_requested: how many were asked for before pruning.

    Raises: BadInput for edges that the graph does not have.
    """

    graph: EdgeGraph
    edges: Tensor
    n_requested: int

    def __post_init__(self) -> None:
        """Check that every edge is one of the graph."""
        if self.edges.shape != self.graph.legal.shape or self.edges.dtype != torch.bool:
            wanted = tuple(self.graph.legal.shape)
            raise BadInput(f"circuit edges must be bool [source slot] {wanted}, not {tuple(self.edges.shape)}")
        if bool((self.edges.cpu() & ~self.graph.legal).any()):
            source, slot = (self.edges.cpu() & ~self.graph.legal).nonzero()[0].tolist()
            raise BadInput(
                f"{self.graph.edge_names([(source, slot)])[0]} is no edge: a slot reads earlier sources only"
            )

    @property
    def n_edges(self) -> int:
        """Edges that are kept."""
        return int(self.edges.sum())

    @property
    def nodes(self) -> Tensor:
        """Which sources have a kept edge that leaves them: [source] bool."""
        return self.edges.any(dim=1)

    def edge_names(self) -> list[str]:
        """The kept edges by name, in the order of their sources: `a0.h3->a1.h2<k>`."""
        return self.graph.edge_names([(int(source), int(slot)) for source, slot in self.edges.nonzero()])


def find_circuit(
    scores: EdgeScores, n_edges: int, method: SearchMethod = "top-n", *, is_signed: bool = False
) -> Circuit:
    """The circuit of the edges that score most, pruned (see `pruned`), so that it may hold fewer than `n_edges`.

    method: `top-n` takes the edges of largest |score|; `greedy` starts at the logits and takes, again and again, the
    best edge into what is already there. is_signed: the most negative scores instead, edges that help the readout.
    Of equal scores the earlier source wins, then the earlier slot.
    Source: METHODS 6d; Hanna et al. 2024. Raises: BadInput for an unknown method or fewer than no edges.
    """
    one_of("method", method, get_args(SearchMethod))
    whole_number("n_edges", n_edges, 0)
    graph = scores.graph
    worth = -scores.matrix if is_signed else scores.matrix.abs()
    worth = worth.double().cpu().masked_fill(~graph.legal, -torch.inf)
    chosen = _top(worth, n_edges) if method == "top-n" else _greedy(graph, worth, n_edges)
    return Circuit(graph, pruned(graph, chosen & graph.legal), n_edges)


def pruned(graph: EdgeGraph, edges: Tensor) -> Tensor:
    """Edges [source slot] bool without those of nodes that lie on no kept path from the input to the logits.

    A head or MLP without a kept edge into it, or without one out of it, is dropped with its edges, until none is left
    to drop; input and logits stay. Source: METHODS 6d.
    """
    feeds = graph.feeds.float()
    while True:
        reads = edges.any(dim=0).float() @ feeds > 0
        reads[0] = True
        alive = reads & edges.any(dim=1)
        reaches = feeds @ alive.float() > 0
        reaches[-1] = True
        kept = edges & alive[:, None] & reaches
        if torch.equal(kept, edges):
            return kept
        edges = kept


def ungrouped(circuit: Circuit) -> Circuit:
    """The circuit on the graph in which every query head has key and value slots of its own.

    An edge into a shared slot becomes one into that slot of each query head that shares it.
    """
    graph, wide = circuit.graph, replace(circuit.graph, n_kv_heads=circuit.graph.n_heads)
    edges = torch.zeros_like(wide.legal)
    for slot, name in enumerate(graph.slots):
        layer = graph.layer_of_slot(slot)
        targets = [wide.slots.index(name)] if "<" not in name else []
        if not targets:
            part, heads = graph.readers(slot - graph.head_slots(layer).start)
            targets = [wide.slot_of_head(layer, PARTS[part], head) for head in range(heads.start, heads.stop)]
        edges[:, targets] = circuit.edges[:, [slot]].cpu()
    return Circuit(wide, edges, circuit.n_requested)


def _top(worth: Tensor, n_edges: int) -> Tensor:
    order = worth.flatten().argsort(descending=True, stable=True)[:n_edges]
    return torch.zeros(worth.numel(), dtype=torch.bool).index_fill(0, order, value=True).reshape(worth.shape)


def _greedy(graph: EdgeGraph, worth: Tensor, n_edges: int) -> Tensor:
    """Edges taken from a heap of all those into nodes that are in already."""
    chosen = torch.zeros_like(worth, dtype=torch.bool)
    heap: list[tuple[float, int, int]] = []
    entered: set[int] = set()

    def enter(slots: list[int]) -> None:
        for slot in set(slots) - entered:
            entered.add(slot)
            for source in graph.legal[:, slot].nonzero()[:, 0].tolist():
                heapq.heappush(heap, (-float(worth[source, slot]), source, slot))

    enter([graph.n_slots - 1])
    for _ in range(n_edges):
        if not heap:
            break
        _, source, slot = heapq.heappop(heap)
        chosen[source, slot] = True
        enter(graph.feeds[:, source].nonzero()[:, 0].tolist())
    return chosen
