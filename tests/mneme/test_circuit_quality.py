"""What circuits leave out and hold in vain, on planted weights, by plain forwards, and by counts of random circuits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import isnan

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.circuit_faithfulness import Faithfulness, faithfulness
from mneme.circuit_quality import (
    complement,
    completeness,
    double_dissociation,
    greedy_completeness,
    minimality,
    random_circuits,
)
from mneme.circuits import Circuit, find_circuit, pruned
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import edge_scores
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.readouts import logit_difference
from tests import planted
from tests.architectures import VOCABULARY, tiny
from tests.naive_edges import NaiveEdges

READOUT = logit_difference(torch.arange(2) + 3, torch.arange(2) + 9)
TOKENS = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
COPIES = (torch.tensor([TOKENS] * 3), torch.tensor([[*TOKENS[:2], 20, *TOKENS[3:]]] * 3))
COPIED = logit_difference(torch.tensor([12] * 3), torch.tensor([14] * 3))


@cache
def copier() -> LanguageModel:
    return LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")


@cache
def model() -> LanguageModel:
    return LanguageModel(tiny("gpt2", torch.float64, num_hidden_layers=2), "gpt2", None, "cpu")


def pair() -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 2, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 8])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


@cache
def path() -> Circuit:
    """The three edges by which the planted model copies."""
    return find_circuit(edge_scores(copier(), *COPIES, COPIED, "eap-ig-inputs", 20), 3)


@cache
def drawn() -> Circuit:
    graph = EdgeGraph.sized(2, 4)
    edges = torch.rand(graph.legal.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    return Circuit(graph, pruned(graph, edges & graph.legal), 1)


def test_nothing_that_copies_is_left_outside_the_planted_path() -> None:
    assert complement(path()).n_edges == path().graph.n_edges - 3
    found = completeness(copier(), *COPIES, COPIED, path(), seed=0, n_draws=6)
    assert found.complement == pytest.approx(0.0, abs=1e-6)
    broken = found.knocked_out.flatten(1).any(dim=1)
    assert int(broken.sum()) > 0
    assert torch.allclose(found.circuit, (~broken).double(), atol=1e-6)
    assert float(found.incompleteness.max()) < 1e-6


def test_a_circuit_that_misses_an_edge_has_it_in_its_complement() -> None:
    half = find_circuit(edge_scores(model(), *pair(), READOUT), 100)
    whole = Circuit(half.graph, half.graph.legal, 1)
    assert completeness(model(), *pair(), READOUT, whole, seed=0, n_draws=3).incompleteness.tolist() == [0.0] * 3
    assert float(completeness(model(), *pair(), READOUT, half, seed=0, n_draws=3).incompleteness.max()) > 0.01


def test_knock_outs_equal_plain_forwards_without_the_same_edges() -> None:
    found = completeness(model(), *pair(), READOUT, drawn(), seed=1, n_draws=2)
    graph, naive = drawn().graph, NaiveEdges(model(), *pair(), READOUT)

    def f(edges: Tensor) -> float:
        part, whole, empty = (
            float(naive.readout_of(Circuit(graph, each, 1), naive.other).mean())
            for each in (edges, graph.legal, torch.zeros_like(edges))
        )
        return (part - empty) / (whole - empty)

    assert found.complement == pytest.approx(f(graph.legal & ~drawn().edges), rel=1e-6)
    for place, knocked in enumerate(found.knocked_out):
        assert not bool((knocked & ~drawn().edges).any())
        assert 0 < int(knocked.sum()) < drawn().n_edges
        assert float(found.circuit[place]) == pytest.approx(f(drawn().edges & ~knocked), rel=1e-6)
        assert float(found.model[place]) == pytest.approx(f(graph.legal & ~knocked), rel=1e-6)


def test_the_greedy_search_takes_the_worst_edge_of_all_it_may_try() -> None:
    small = find_circuit(edge_scores(model(), *pair(), READOUT), 12)
    found = greedy_completeness(model(), *pair(), READOUT, small, seed=0, n_steps=2, n_candidates=100)
    assert [int(each.sum()) for each in found.knocked_out] == [1, 2]
    assert not bool((found.knocked_out[0] & ~found.knocked_out[1]).any())
    without = []
    for source, slot in small.edges.nonzero().tolist():
        edges = torch.zeros_like(small.edges)
        edges[source, slot] = True
        circuits = [Circuit(small.graph, each & ~edges, 1) for each in (small.edges, small.graph.legal)]
        f = faithfulness(model(), *pair(), READOUT, circuits).f
        without.append(abs(float(f[0] - f[1])))
    assert float(found.incompleteness[0]) == pytest.approx(max(without))
    steps = greedy_completeness(copier(), *COPIES, COPIED, path(), seed=0, n_steps=9, n_candidates=1)
    assert len(steps.incompleteness) == 3  # the path has no more edges


def test_every_edge_of_the_planted_path_is_needed_and_no_random_one() -> None:
    found = minimality(copier(), *COPIES, COPIED, path(), seed=0, n_random=30)
    assert [tuple(each) for each in found.edges.tolist()] == [tuple(each) for each in path().edges.nonzero().tolist()]
    assert found.cost.estimate.tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert float(found.cost.low.min()) > 0.999
    assert len(found.reference) == 12 - 3  # edges between input, the two heads and logits, without the path
    assert float(found.reference.abs().max()) < 1e-6
    assert found.p_values.tolist() == pytest.approx([1 / 10] * 3)
    assert found.share == 0.0  # nine random edges are too few for p <= 0.05


def test_the_share_counts_edges_that_can_be_tested() -> None:
    found = minimality(copier(), *COPIES, COPIED, path(), seed=0, n_tested=1, n_random=1)
    tested = torch.tensor([0.01, 0.05, 0.06, torch.nan])
    assert replace(found, p_values=tested).share == pytest.approx(2 / 3)


def test_costs_are_what_faithfulness_says_with_and_without() -> None:
    found = minimality(model(), *pair(), READOUT, drawn(), seed=1, n_tested=4, n_random=5)
    assert found.edges.shape == (4, 2)
    assert found.reference.shape == (5,)
    for edge, cost in zip(found.edges.tolist(), found.cost.estimate, strict=True):
        edges = drawn().edges.clone()
        edges[edge[0], edge[1]] = False
        f = faithfulness(model(), *pair(), READOUT, [drawn(), Circuit(drawn().graph, edges, 1)]).f
        assert float(cost) == pytest.approx(float(f[0] - f[1]), abs=1e-9)


def test_a_whole_graph_has_no_random_edges_to_compare_with() -> None:
    graph = drawn().graph
    found = minimality(model(), *pair(), READOUT, Circuit(graph, graph.legal, 1), seed=0, n_tested=2)
    assert len(found.reference) == 0
    assert bool(found.p_values.isnan().all())
    assert isnan(found.share)


def said(*readouts: float, n_items: int = 30) -> Faithfulness:
    """Faithfulness of two circuits of known mean readouts, whole 1 and empty 0, with some noise by prompt."""
    noise = 0.1 * torch.randn(n_items, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    items = torch.tensor(readouts, dtype=torch.float64) + noise - noise.mean(dim=0)
    ends = torch.ones(n_items, dtype=torch.float64)
    sizes = torch.tensor([1, 1])
    return Faithfulness(items.mean(dim=0), items, ends, 0 * ends, sizes, sizes)


def test_behaviors_are_apart_where_each_loses_more_without_its_own_circuit() -> None:
    found = double_dissociation(said(0.2, 0.9), said(0.8, 0.1), seed=0)
    assert (float(found.a.estimate), float(found.b.estimate)) == (pytest.approx(0.7), pytest.approx(0.7))
    assert found.is_double
    assert not double_dissociation(said(0.2, 0.9), said(0.1, 0.1), seed=0).is_double  # b needs both alike
    assert not double_dissociation(said(0.9, 0.2), said(0.8, 0.1), seed=0).is_double  # a needs the other's


def test_a_circuit_is_not_apart_from_itself() -> None:
    without = faithfulness(copier(), *COPIES, COPIED, [complement(path())] * 2)
    found = double_dissociation(without, without, seed=0)
    assert (float(found.a.estimate), float(found.a.high)) == (0.0, 0.0)
    assert not found.is_double


@pytest.mark.parametrize("graph", [EdgeGraph.sized(2, 2), EdgeGraph.sized(3, 4, 2, is_parallel=True)])
def test_random_circuits_have_the_size_that_is_asked_and_nothing_hanging(graph: EdgeGraph) -> None:
    for n_edges in (1, 3, 10, 40, graph.n_edges):
        circuits = random_circuits(graph, n_edges, 10, seed=0)
        assert [each.n_requested for each in circuits] == [n_edges] * 10
        assert all(torch.equal(pruned(graph, each.edges), each.edges) for each in circuits)
        assert max(abs(each.n_edges - n_edges) for each in circuits) <= (1 if n_edges < 3 else 0)


def test_random_circuits_differ_by_seed_and_reach_every_edge() -> None:
    graph = EdgeGraph.sized(2, 2)
    circuits = random_circuits(graph, 20, 60, seed=0)
    assert torch.equal(torch.stack([each.edges for each in circuits]).any(dim=0), graph.legal)
    again, other = random_circuits(graph, 20, 60, seed=0), random_circuits(graph, 20, 60, seed=1)
    assert all(torch.equal(a.edges, b.edges) for a, b in zip(circuits, again, strict=True))
    assert not any(torch.equal(a.edges, b.edges) for a, b in zip(circuits, other, strict=True))


def test_what_cannot_be_asked_is_refused() -> None:
    graph = drawn().graph
    empty = Circuit(graph, torch.zeros_like(graph.legal), 5)
    for ask in (completeness, greedy_completeness, minimality):
        with pytest.raises(BadInput, match="the circuit has no edges, so nothing can be knocked out of it"):
            ask(model(), *pair(), READOUT, empty, seed=0)
    with pytest.raises(BadInput, match=r"share is 1.0: give a number from 0.0 to below 1.0"):
        completeness(model(), *pair(), READOUT, drawn(), seed=0, share=1.0)
    with pytest.raises(BadInput, match="takes two runs of two circuits"):
        double_dissociation(faithfulness(model(), *pair(), READOUT, [drawn()]), said(0.0, 1.0), seed=0)
    with pytest.raises(BadInput, match=f"n_edges is 9999: give a whole number from 1 to {graph.n_edges}"):
        random_circuits(graph, 9999, 1, seed=0)
