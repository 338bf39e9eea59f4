"""Overlap of circuits: counts by hand, and the right tail that holds what was seen."""

from __future__ import annotations

from itertools import combinations
from math import comb, isnan

import numpy as np
import pytest
import torch

from mneme.circuit_overlap import overlap, score_cosine, set_overlap, smallest_faithful
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput

GRAPH = EdgeGraph.sized(2, 2)


def circuit(*names: str, graph: EdgeGraph = GRAPH) -> Circuit:
    edges = torch.zeros_like(graph.legal)
    for name in names:
        source, slot = name.split("->")
        edges[graph.sources.index(source), graph.slots.index(slot)] = True
    return Circuit(graph, edges, len(names))


def masks(n_universe: int, n_a: int, n_b: int, n_shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.arange(n_universe)
    return places < n_a, (places >= n_a - n_shared) & (places < n_a - n_shared + n_b)


@pytest.mark.parametrize(
    ("sizes", "p_value"),
    [((10, 5, 5, 5), 1 / 252), ((10, 5, 5, 3), 0.5), ((10, 5, 5, 0), 1.0), ((10, 0, 3, 0), 1.0), ((7, 7, 3, 3), 1.0)],
)
def test_known_tails(sizes: tuple[int, int, int, int], p_value: float) -> None:
    found = set_overlap(*masks(*sizes))
    assert (found.n_universe, found.n_a, found.n_b, found.n_shared) == sizes
    assert found.p_value == pytest.approx(p_value, rel=1e-12)


def test_the_tail_is_the_share_of_all_sets_that_overlap_as_much() -> None:
    n_universe, n_a, n_b = 9, 4, 3
    drawn = [len(set(each) & set(range(n_a))) for each in combinations(range(n_universe), n_b)]
    for n_shared in range(n_b + 1):
        share = sum(each >= n_shared for each in drawn) / len(drawn)
        assert set_overlap(*masks(n_universe, n_a, n_b, n_shared)).p_value == pytest.approx(share, rel=1e-12)


def test_the_tail_is_right_far_out_and_never_zero() -> None:
    found = set_overlap(*masks(384, 32, 32, 25))
    exact = sum(comb(32, x) * comb(352, 32 - x) for x in range(25, 33)) / comb(384, 32)
    assert found.p_value == pytest.approx(exact, rel=1e-9)
    assert found.p_value == pytest.approx(8e-27, rel=0.05)
    assert set_overlap(*masks(30_000, 1000, 1000, 1000)).p_value == np.finfo(np.float64).tiny


def test_shares_are_counts_divided() -> None:
    found = set_overlap(*masks(20, 4, 8, 2))
    assert (found.jaccard, found.coefficient, found.recall_a, found.recall_b) == (0.2, 0.5, 0.5, 0.25)


def test_edges_are_shared_where_source_and_slot_are() -> None:
    a = circuit("input->a0.h0<v>", "a0.h0->a1.h1<k>", "a1.h1->logits")
    b = circuit("input->a0.h0<q>", "a0.h0->a1.h1<k>", "a1.h1->logits", "input->logits")
    found = overlap(a, b)
    assert (found.n_a, found.n_b, found.n_shared, found.n_universe) == (3, 4, 2, GRAPH.n_edges)
    assert found.jaccard == 2 / 5


def test_nodes_are_heads_and_mlps_without_input_and_logits() -> None:
    a = circuit("input->a0.h0<v>", "a0.h0->a1.h1<k>", "a1.h1->logits")
    b = circuit("input->a0.h0<q>", "a0.h0->m1", "m1->logits", "input->logits")
    found = overlap(a, b, level="node")
    assert (found.n_a, found.n_b, found.n_shared, found.n_universe) == (2, 2, 1, 6)
    assert found.p_value == pytest.approx((comb(2, 1) * 4 + 1) / comb(6, 2))


def test_a_circuit_shares_all_with_itself_and_disjoint_ones_nothing() -> None:
    a, b = circuit("input->m0", "m0->logits"), circuit("input->m1", "m1->logits")
    for level in ("edge", "node"):
        assert overlap(a, a, level=level).jaccard == 1.0
        apart = overlap(a, b, level=level)
        assert (apart.jaccard, apart.coefficient, apart.p_value) == (0.0, 0.0, 1.0)


def test_shares_of_an_empty_circuit_are_missing() -> None:
    a, empty = circuit("input->logits"), circuit()
    found = overlap(a, empty)
    assert (found.jaccard, found.recall_a, found.p_value) == (0.0, 0.0, 1.0)
    assert isnan(found.recall_b)
    assert isnan(found.coefficient)
    assert isnan(overlap(empty, empty).jaccard)


def test_cosine_of_scores_reads_edges_only() -> None:
    matrix = torch.full(GRAPH.legal.shape, torch.nan)
    a, b = matrix.masked_fill(GRAPH.legal, 1.0), matrix.masked_fill(GRAPH.legal, -2.0)
    assert score_cosine(a, a) == pytest.approx(1.0)
    assert score_cosine(a, b) == pytest.approx(-1.0)
    assert isnan(score_cosine(a, 0 * a))


def test_the_smallest_faithful_circuit_is_the_one_of_fewest_edges() -> None:
    f, n_edges = torch.tensor([0.3, 0.9, 0.86, 1.0]), torch.tensor([5, 40, 20, 80])
    assert smallest_faithful(f, n_edges) == 2
    assert smallest_faithful(f, n_edges, least=0.95) == 3
    assert smallest_faithful(f[:1], n_edges[:1]) is None
    assert smallest_faithful(torch.tensor([torch.nan]), n_edges[:1]) is None


def test_what_cannot_be_compared_is_refused() -> None:
    grouped = EdgeGraph.sized(2, 2, 1)
    with pytest.raises(BadInput, match="the two circuits are of different graphs"):
        overlap(circuit("input->logits"), circuit("input->logits", graph=grouped))
    with pytest.raises(BadInput, match="level is 'head': choose one of edge, node"):
        overlap(circuit(), circuit(), level="head")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="must be bool masks of one universe"):
        set_overlap(torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
    with pytest.raises(BadInput, match="must be bool masks of one universe"):
        set_overlap(torch.ones(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(BadInput, match="the two score matrices are of different graphs"):
        score_cosine(torch.zeros(GRAPH.legal.shape), torch.zeros(grouped.legal.shape))
    with pytest.raises(BadInput, match="f and n_edges must name the same circuits"):
        smallest_faithful(torch.ones(2), torch.ones(3))
