"""Graphs have the edges that METHODS counts, and every edge runs forward."""

from __future__ import annotations

import pytest
import torch

from mneme.edge_graph import EdgeGraph

COUNTS = {
    "GPT-2 small": (EdgeGraph.sized(12, 12), 32_491),
    "GPT-2 medium": (EdgeGraph.sized(24, 16), 231_877),
    "GPT-2 large": (EdgeGraph.sized(36, 20), 810_703),
    "GPT-2 XL": (EdgeGraph.sized(48, 25), 2_235_025),
    "Pythia-160m": (EdgeGraph.sized(12, 12, is_parallel=True), 32_347),
    "Pythia-410m": (EdgeGraph.sized(24, 16, is_parallel=True), 231_493),
    "Llama-3.2-1B": (EdgeGraph.sized(16, 32), 386_713),
    "Llama-3-8B": (EdgeGraph.sized(32, 32), 1_592_881),
    "Llama-3-8B, grouped": (EdgeGraph.sized(32, 32, 8), 805_681),
    "Qwen2.5-0.5B": (EdgeGraph.sized(24, 14), 179_749),
    "Qwen2.5-0.5B, grouped": (EdgeGraph.sized(24, 14, 2), 79_813),
    "Gemma-2-2B": (EdgeGraph.sized(26, 8), 74_218),
    "one layer, one head": (EdgeGraph.sized(1, 1), 8),
    "one layer, one head, parallel": (EdgeGraph.sized(1, 1, is_parallel=True), 7),
    "attention alone, 2 x 1": (EdgeGraph.sized(2, 1, has_mlps=False), 12),
    "attention alone, 2 x 8": (EdgeGraph.sized(2, 8, has_mlps=False), 257),
    "attention alone, 4 x 8": (EdgeGraph.sized(4, 8, has_mlps=False), 1_281),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_graph_has_the_edges_that_the_methods_count(name: str) -> None:
    graph, n_edges = COUNTS[name]
    assert graph.n_edges == n_edges
    assert graph.legal.shape == (graph.n_sources, graph.n_slots) == (len(graph.sources), len(graph.slots))


def test_gpt2_small_has_157_sources_and_445_slots() -> None:
    graph = EdgeGraph.sized(12, 12)
    assert (graph.n_sources, graph.n_slots) == (157, 445)


def test_all_edges_of_one_layer_by_name() -> None:
    graph = EdgeGraph.sized(1, 1)
    assert graph.edge_names([(int(source), int(slot)) for source, slot in graph.legal.nonzero()]) == [
        "input->a0.h0<q>",
        "input->a0.h0<k>",
        "input->a0.h0<v>",
        "input->m0",
        "input->logits",
        "a0.h0->m0",
        "a0.h0->logits",
        "m0->logits",
    ]


def test_a_parallel_mlp_does_not_read_the_heads_of_its_layer() -> None:
    names = EdgeGraph.sized(2, 1, is_parallel=True)
    edges = names.edge_names([(int(source), int(slot)) for source, slot in names.legal.nonzero()])
    assert "a0.h0->m0" not in edges
    assert "a0.h0->m1" in edges


@pytest.mark.parametrize("graph", [EdgeGraph.sized(3, 4), EdgeGraph.sized(2, 4, 2), EdgeGraph(4, 4, (True, False))])
def test_indices_are_those_of_the_names(graph: EdgeGraph) -> None:
    for layer in range(graph.n_layers):
        assert graph.sources[graph.source_of_mlp(layer)] == graph.slots[graph.slot_of_mlp(layer)] == f"m{layer}"
        assert {name.split(".")[0] for name in graph.slots[graph.head_slots(layer)]} == {f"a{layer}"}
        assert graph.sources[graph.head_sources(layer)] == tuple(f"a{layer}.h{head}" for head in range(graph.n_heads))
        for part in "qkv":
            assert graph.slots[graph.slot_of_head(layer, part, 1)] == f"a{layer}.h1<{part}>"
    assert graph.slots[-1] == "logits"


def test_a_node_is_computed_from_its_own_slots() -> None:
    graph = EdgeGraph.sized(2, 4, 2)
    of_head = graph.feeds[:, graph.source_of_head(1, 3)].nonzero()[:, 0].tolist()
    assert [graph.slots[slot] for slot in of_head] == ["a1.h3<q>", "a1.h1<k>", "a1.h1<v>"]
    of_mlp = graph.feeds[:, graph.source_of_mlp(0)].nonzero()[:, 0].tolist()
    assert [graph.slots[slot] for slot in of_mlp] == ["m0"]
    assert not bool(graph.feeds[:, 0].any())
    assert not bool(graph.feeds[-1].any())


@pytest.mark.parametrize("graph", [EdgeGraph.sized(3, 2), EdgeGraph.sized(3, 2, is_parallel=True)])
def test_no_path_returns_to_where_it_started(graph: EdgeGraph) -> None:
    step = (graph.legal.float() @ graph.feeds.float() > 0).float()
    power = torch.linalg.matrix_power(step, graph.n_sources)
    assert not bool(power.any())
    assert torch.equal(step, step.triu(1))
