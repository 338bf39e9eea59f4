"""Circuits written and read again: nothing is lost in our form, and the MIB form is the one its readers expect."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
import torch

from mneme.circuit_json import circuit_from_json, circuit_to_json, from_mib, to_mib
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput

GRAPHS = [
    EdgeGraph.sized(2, 2),
    EdgeGraph.sized(2, 4, 2, is_parallel=True),
    EdgeGraph.sized(3, 2, has_mlps=False),
    EdgeGraph(2, 2, (True, False)),
]


def drawn(graph: EdgeGraph, seed: int = 0) -> tuple[Circuit, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(graph.legal.shape, generator=generator) < 0.3) & graph.legal
    scores = torch.randn(graph.legal.shape, generator=generator).masked_fill(~graph.legal, torch.nan)
    return Circuit(graph, edges, 99), scores


def changed(text: str, **changes: Any) -> str:
    return json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_circuit_comes_back_to_the_last_digit(graph: EdgeGraph) -> None:
    circuit, scores = drawn(graph)
    found = circuit_from_json(circuit_to_json(circuit, scores, {"model": "micro", "seed": 3}))
    assert found.circuit.graph == graph
    assert torch.equal(found.circuit.edges, circuit.edges)
    assert found.circuit.n_requested == 99
    assert torch.equal(found.scores.float()[circuit.edges], scores[circuit.edges])
    assert bool(found.scores[~circuit.edges].isnan().all())
    assert found.about == {"model": "micro", "seed": 3}
    again = circuit_to_json(found.circuit, found.scores, found.about)
    assert again == circuit_to_json(circuit, scores, {"model": "micro", "seed": 3})


def test_a_circuit_without_scores_or_edges_comes_back_too() -> None:
    circuit, _ = drawn(GRAPHS[0])
    found = circuit_from_json(circuit_to_json(circuit))
    assert torch.equal(found.circuit.edges, circuit.edges)
    assert bool(found.scores.isnan().all())
    empty = Circuit(GRAPHS[0], torch.zeros_like(circuit.edges), 7)
    assert circuit_from_json(circuit_to_json(empty)).circuit.n_edges == 0


def test_an_edge_is_written_by_name() -> None:
    edges = torch.zeros_like(GRAPHS[0].legal)
    edges[0, GRAPHS[0].slots.index("a1.h0<k>")] = True
    scores = torch.full(edges.shape, torch.nan).masked_fill(edges, -0.5)
    content = json.loads(circuit_to_json(Circuit(GRAPHS[0], edges, 1), scores))
    assert content["edges"] == [{"source": "input", "destination": "a1.h0<k>", "score": -0.5}]
    assert content["graph"] == {"n_heads": 2, "n_kv_heads": 2, "is_parallel": [False, False], "has_mlps": True}


@pytest.mark.parametrize("graph", [EdgeGraph.sized(2, 2), EdgeGraph.sized(2, 4, is_parallel=True)])
def test_the_mib_form_comes_back(graph: EdgeGraph) -> None:
    circuit, scores = drawn(graph)
    found = from_mib(to_mib(circuit, scores, d_model=16))
    assert found.circuit.graph == graph
    assert torch.equal(found.circuit.edges, circuit.edges)
    assert found.circuit.n_requested == circuit.n_edges
    assert torch.equal(found.scores.float()[graph.legal], scores[graph.legal])
    assert found.about["cfg"]["d_model"] == 16
    assert to_mib(found.circuit, found.scores, d_model=16) == to_mib(circuit, scores, d_model=16)


def test_the_mib_form_names_every_node_and_edge_of_its_graph() -> None:
    circuit, scores = drawn(GRAPHS[0])
    content = json.loads(to_mib(circuit, scores, d_model=8))
    assert content["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert list(content["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    assert content["nodes"]["logits"] == {"in_graph": True}
    leaving = {name.split("->")[0] for name in circuit.edge_names()}
    assert {name for name, node in content["nodes"].items() if node["in_graph"]} == leaving | {"logits"}
    assert len(content["edges"]) == GRAPHS[0].n_edges
    assert {name for name, edge in content["edges"].items() if edge["in_graph"]} == set(circuit.edge_names())
    assert content["edges"]["a0.h1->a1.h0<q>"]["score"] == -float(scores[2, GRAPHS[0].slots.index("a1.h0<q>")])


def test_in_the_mib_form_membership_stands_for_missing_scores() -> None:
    circuit, _ = drawn(GRAPHS[0])
    edges = json.loads(to_mib(circuit, d_model=8))["edges"].values()
    assert {(edge["score"], edge["in_graph"]) for edge in edges} == {(1.0, True), (0.0, False)}


def test_a_mib_text_by_its_authors_is_read() -> None:
    nodes = {name: {"in_graph": False, "score": float("nan")} for name in ("input", "a0.h0", "m0", "logits")}
    edges = {"input->a0.h0<q>": {"score": 0.25, "in_graph": False}, "input->logits": {"score": -2, "in_graph": True}}
    cfg = {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 4}
    found = from_mib(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}))
    assert found.circuit.edge_names() == ["input->logits"]
    assert found.scores[0].tolist()[0] == -0.25
    assert float(found.scores[0, -1]) == 2.0
    assert bool(found.scores[1].isnan().all())


def test_graphs_that_the_mib_form_cannot_hold_are_refused() -> None:
    for graph in GRAPHS[1:]:
        with pytest.raises(BadInput, match="the MIB form holds ungrouped graphs with MLPs whose layers are alike"):
            to_mib(*drawn(graph), d_model=8)


def test_scores_that_are_missing_are_refused() -> None:
    circuit, scores = drawn(GRAPHS[0])
    source, slot = circuit.edges.nonzero()[0].tolist()
    holed = scores.clone()
    holed[source, slot] = torch.nan
    for write in (circuit_to_json, lambda *given: to_mib(*given, d_model=8)):
        with pytest.raises(BadInput, match=f"the edge {circuit.edge_names()[0]} has no score"):
            write(circuit, holed)
        with pytest.raises(BadInput, match=r"scores must be \[source slot\] \[7, 15\], not \[7, 14\]"):
            write(circuit, scores[:, 1:])
    with pytest.raises(BadInput, match="facts about a circuit must be plain JSON"):
        circuit_to_json(circuit, scores, {"f": float("nan")})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "the text says format 'other'"),
        ({"graph": None}, "graph must be a JSON object, not NoneType"),
        ({"edges": {}}, "names no list of edges"),
        ({"edges": [{"source": "a9.h0", "destination": "logits"}]}, "'a9.h0->logits' joins no source and slot"),
        ({"edges": [{"source": "m1", "destination": "m0"}]}, "m1->m0 is no edge"),
        ({"edges": [{"source": "m1", "destination": "logits"}] * 2}, "m1->logits is named twice"),
        ({"edges": [{"source": "m1", "destination": "logits", "score": "1"}]}, "score of m1->logits is '1'"),
        ({"edges": [{"source": "m1", "destination": "logits", "score": 10**400}]}, "score of m1->logits is '1000"),
        ({"edges": [{"source": "m1", "destination": "logits", "score": -inf}]}, "score of m1->logits is '-inf'"),
        ({"edges": [7]}, "an edge must be a JSON object, not int"),
        ({"n_requested": -1}, "n_requested is -1: give a whole number"),
        ({"about": 3}, "about must be a JSON object, not int"),
    ],
)
def test_texts_that_are_no_circuit_are_refused(changes: dict[str, Any], said: str) -> None:
    text = circuit_to_json(*drawn(GRAPHS[0]))
    with pytest.raises(BadInput, match=said):
        circuit_from_json(changed(text, **changes))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"n_heads": 0}, "graph.n_heads is 0"),
        ({"n_kv_heads": 3}, "graph.n_kv_heads is 3"),
        ({"is_parallel": []}, "graph must name is_parallel for each layer"),
        ({"is_parallel": [1]}, "graph.is_parallel is 1: give true or false"),
        ({"n_heads": 8192, "n_kv_heads": 1}, "more than the 8192 that are read"),
    ],
)
def test_graphs_that_cannot_be_are_refused(shape: dict[str, Any], said: str) -> None:
    text = circuit_to_json(*drawn(GRAPHS[0]))
    with pytest.raises(BadInput, match=said):
        circuit_from_json(changed(text, graph=json.loads(text)["graph"] | shape))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": []}, "nodes must be a JSON object, not list"),
        ({"nodes": {"a7.h0": {"in_graph": True}}}, "'a7.h0' is no node of 2 layers with 2 heads"),
        ({"nodes": {"m0": {"in_graph": True, "neurons": [True]}}}, "the text holds single neurons"),
        ({"edges": {"m0->a0.h0<q>": {"score": 1.0, "in_graph": True}}}, "m0->a0.h0<q> is no edge"),
        ({"edges": {"m0": {"score": 1.0, "in_graph": True}}}, "'m0' joins no source and slot"),
        ({"edges": {"m0->m1": {"score": 1.0}}}, "in_graph of m0->m1 is None: give true or false"),
        ({"cfg": {"n_layers": 2}}, "cfg.n_heads is None"),
    ],
)
def test_mib_texts_that_are_none_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        from_mib(changed(to_mib(*drawn(GRAPHS[0]), d_model=8), **changes))


def test_what_is_no_json_is_refused() -> None:
    for read in (circuit_from_json, from_mib):
        with pytest.raises(BadInput, match="the text is no JSON"):
            read("{")
        with pytest.raises(BadInput, match="the circuit must be a JSON object, not list"):
            read("[]")
        with pytest.raises(BadInput, match="the text is no JSON"):
            read("[" * 100_000)
