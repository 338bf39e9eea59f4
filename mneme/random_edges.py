"""Random edges that make a circuit: so many of them that a given number is left when those that hang are pruned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mneme.circuits import pruned
from mneme.edge_graph import EdgeGraph

TRIES = 20


def random_edges(graph: EdgeGraph, n_edges: int, rng: np.random.Generator) -> Tensor:
    """Random edges [source slot] bool that pruning leaves as they are, as close to `n_edges` of them as can be.

    Edges are taken in a random order until what pruning leaves has reached `n_edges`; then the latest that can go
    without another edge hanging are taken out again. Where that misses the size, other orders are tried, 20 at most.
    """
    best = torch.zeros_like(graph.legal)
    for _ in range(TRIES):
        edges = _random_edges(graph, n_edges, rng)
        if abs(int(edges.sum()) - n_edges) < abs(int(best.sum()) - n_edges):
            best = edges
        if int(best.sum()) == n_edges:
            break
    return best


def _random_edges(graph: EdgeGraph, n_edges: int, rng: np.random.Generator) -> Tensor:
    order = graph.legal.nonzero()[rng.permutation(graph.n_edges)]

    def first(n_taken: int) -> Tensor:
        edges = torch.zeros_like(graph.legal)
        edges[order[:n_taken, 0], order[:n_taken, 1]] = True
        return pruned(graph, edges)

    low, high = n_edges, graph.n_edges  # more edges never leave fewer when pruned, so halving finds the size
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if int(first(middle).sum()) >= n_edges else (middle + 1, high)
    edges = _thinned(graph, first(low), order[:low].flip(0), n_edges)
    before = first(low - 1)
    is_closer = n_edges - int(before.sum()) < int(edges.sum()) - n_edges
    return before if is_closer else edges


def _thinned(graph: EdgeGraph, edges: Tensor, order: Tensor, n_edges: int) -> Tensor:
    """Edges without the first of an order [edge 2] whose going leaves none hanging, down to n_edges where it can be."""
    edges = edges.clone()
    n_leaving = edges.sum(dim=1).tolist()
    n_entering = (edges.sum(dim=0) @ graph.feeds.long()).tolist()  # by the source that is computed from the slots
    n_kept = int(edges.sum())
    for source, slot in order[edges[order[:, 0], order[:, 1]]].tolist():
        if n_kept == n_edges:
            break
        readers = [each for each in graph.feeds[slot].nonzero()[:, 0].tolist() if n_leaving[each]]
        if (source == 0 or n_leaving[source] > 1) and all(n_entering[each] > 1 for each in readers):
            edges[source, slot] = False
            n_kept -= 1
            n_leaving[source] -= 1
            for each in readers:
                n_entering[each] -= 1
    return edges
