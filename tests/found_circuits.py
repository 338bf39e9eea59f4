"""Findings of a search for circuits made by hand, on a graph of one layer with two heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mneme.circuit_findings import CircuitFindings, shape_of
from mneme.edge_graph import EdgeGraph

GRAPH = EdgeGraph.sized(1, 2, has_mlps=False)  # sources: input, two heads; slots: six parts of heads, logits
N_FOUND, N_TESTED = 4, 3
WHOLE, EMPTY = torch.tensor([4.0, 5.0, 6.0]), torch.tensor([0.0, 1.0, 2.0])  # a gap of 4 on every prompt
EDGES = [("input", "a0.h0<v>"), ("a0.h0", "logits"), ("input", "a0.h1<v>"), ("a0.h1", "logits")]


def edges(*kept: tuple[str, str]) -> Tensor:
    found = torch.zeros(GRAPH.legal.shape, dtype=torch.bool)
    for source, slot in kept:
        found[GRAPH.sources.index(source), GRAPH.slots.index(slot)] = True
    return found


def run(*shares: float, whole: Tensor = WHOLE, empty: Tensor = EMPTY) -> Tensor:
    """A run under which each circuit keeps the same share of the gap on every prompt: [item 2+circuit]."""
    kept = [empty + share * (whole - empty) for share in shares]
    return torch.stack([whole, empty, *kept], dim=1).double()


def findings(**changes: Any) -> CircuitFindings:
    """Circuits of 1, 2, 4 and all 9 edges, of which the first is empty once pruned and the second is enough."""
    scores = torch.full(GRAPH.legal.shape, torch.nan)
    scores[GRAPH.legal] = 0.01
    for (source, slot), score in zip(EDGES, (-4.0, -3.0, -0.2, -0.1), strict=True):
        scores[GRAPH.sources.index(source), GRAPH.slots.index(slot)] = score
    circuits = [edges(), edges(*EDGES[:2]), edges(*EDGES), GRAPH.legal]
    made: dict[str, Any] = {
        "shape": shape_of(GRAPH),
        "is_discovery": torch.tensor([True] * N_FOUND + [False] * N_TESTED),
        "matrix": scores,
        "item_scores": scores[GRAPH.legal].repeat(N_FOUND, 1),
        "ends": torch.tensor([[4.0, 0.0]] * N_FOUND).double(),
        "edges": torch.stack(circuits),
        "n_requested": torch.tensor([1, 2, 4, 9]),
        "is_selected": torch.tensor([False, True, False, False]),
        "runs": {"corrupt": run(0.0, 0.9, 0.95, 1.0), "zero": run(0.0, 0.5, 0.5, 1.0)},
        "without": run(1.0, 0.1, 0.0, 0.0)[:, 2:],
        "random": torch.stack([run(*[share] * 4)[:, 2:] for share in (0.0, 0.2)], dim=2),
        "random_n_edges": torch.tensor([[0, 0], [2, 3], [4, 4], [0, 0]]),
        "knocked_out": torch.tensor([0.1, 0.3], dtype=torch.float64),
        "minimal_edges": torch.zeros(2, 2, dtype=torch.int64),
        "minimal_cost": torch.tensor([0.5, 0.0], dtype=torch.float64),
        "minimal_p": torch.tensor([0.05, 0.5], dtype=torch.float64),
        "checked_edges": torch.tensor([[0, GRAPH.slots.index("a0.h0<v>")], [1, GRAPH.n_slots - 1]]),
        "is_top": torch.tensor([True, False]),
        "checked_items": torch.tensor([[-5.0, -2.0]] * N_FOUND).double(),
    }
    assert changes.keys() <= made.keys()
    return CircuitFindings(**(made | changes))
