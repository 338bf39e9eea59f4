"""Circuits are what is kept of the best edges once every node lies on a path."""

from __future__ import annotations

import pytest
import torch

from mneme.circuits import Circuit, find_circuit, pruned
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import EdgeScores
from mneme.errors import BadInput

GRAPH = EdgeGraph.sized(2, 2)
PATH = {"input->a0.h0<v>": 3.0, "a0.h0->a1.h1<k>": -2.0, "a1.h1->logits": 1.0}


def scores_of(values: dict[str, float]) -> EdgeScores:
    matrix = torch.full(GRAPH.legal.shape, torch.nan).masked_fill(GRAPH.legal, 0.001)
    for name, value in values.items():
        source, slot = name.split("->")
        matrix[GRAPH.sources.index(source), GRAPH.slots.index(slot)] = value
    return EdgeScores(matrix, GRAPH, torch.ones(1), torch.zeros(1))


@pytest.mark.parametrize("method", ["top-n", "greedy"])
def test_a_planted_path_is_found_whole(method: str) -> None:
    circuit = find_circuit(scores_of(PATH), 3, method)  # type: ignore[arg-type]
    assert circuit.edge_names() == list(PATH)
    assert (circuit.n_edges, circuit.n_requested) == (3, 3)
    assert [GRAPH.sources[each] for each in circuit.nodes.nonzero()[:, 0]] == ["input", "a0.h0", "a1.h1"]


def test_edges_that_hang_are_pruned_however_high_they_score() -> None:
    hanging = {"input->m0": 9.0, "m0->a1.h0<q>": 8.0, "a0.h1->m1": 7.0}  # leads nowhere; comes from nowhere
    circuit = find_circuit(scores_of(PATH | hanging), 6)
    assert circuit.edge_names() == list(PATH)
    assert (circuit.n_edges, circuit.n_requested) == (3, 6)


def test_greedy_takes_what_leads_to_the_logits_before_what_scores_more() -> None:
    values = PATH | {"input->m0": 9.0, "input->a0.h1<q>": 8.0}
    assert find_circuit(scores_of(values), 3, "greedy").edge_names() == list(PATH)
    assert find_circuit(scores_of(values), 3, "top-n").n_edges == 0


def test_signed_search_takes_the_edges_that_help() -> None:
    helping = {"input->logits": -1.0, "input->m1": -3.0, "m1->logits": -2.0}
    circuit = find_circuit(scores_of(helping | {"m0->logits": 5.0, "input->m0": 5.0}), 3, is_signed=True)
    assert circuit.edge_names() == ["input->m1", "input->logits", "m1->logits"]


def test_no_edges_make_an_empty_circuit_and_all_the_whole_graph() -> None:
    scores = scores_of(PATH)
    for method in ("top-n", "greedy"):
        assert find_circuit(scores, 0, method).n_edges == 0  # type: ignore[arg-type]
        whole = find_circuit(scores, 10 * GRAPH.n_edges, method)  # type: ignore[arg-type]
        assert torch.equal(whole.edges, GRAPH.legal)


def test_equal_scores_are_taken_in_order() -> None:
    circuit = find_circuit(scores_of({"input->logits": 1.0, "m1->logits": 1.0, "input->m1": 1.0}), 2)
    assert circuit.edge_names() == ["input->logits"]


def test_pruning_again_changes_nothing() -> None:
    drawn = torch.rand(GRAPH.legal.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    once = pruned(GRAPH, drawn & GRAPH.legal)
    assert 0 < int(once.sum()) < int((drawn & GRAPH.legal).sum())
    assert torch.equal(pruned(GRAPH, once), once)


def test_shared_keys_keep_their_slot_while_one_head_needs_them() -> None:
    graph = EdgeGraph.sized(1, 4, 2)
    for head, n_edges in ((3, 2), (2, 2), (1, 0)):  # heads 2 and 3 read the second key, heads 0 and 1 the first
        edges = torch.zeros_like(graph.legal)
        edges[0, graph.slots.index("a0.h1<k>")] = True
        edges[graph.sources.index(f"a0.h{head}"), -1] = True
        assert int(pruned(graph, edges).sum()) == n_edges


def test_bad_circuits_are_refused() -> None:
    with pytest.raises(BadInput, match="n_edges is -1: give a whole number of at least 0"):
        find_circuit(scores_of(PATH), -1)
    with pytest.raises(BadInput, match="method is 'best': choose one of top-n, greedy"):
        find_circuit(scores_of(PATH), 3, "best")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"circuit edges must be bool \[source slot\] \(7, 15\)"):
        Circuit(GRAPH, torch.ones(7, 15), 0)
    backwards = torch.zeros_like(GRAPH.legal)
    backwards[GRAPH.sources.index("m1"), 0] = True
    with pytest.raises(BadInput, match=r"m1->a0\.h0<q> is no edge"):
        Circuit(GRAPH, backwards, 1)
