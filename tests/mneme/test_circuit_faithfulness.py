"""Circuits run as a plain forward with every other edge replaced, and keep what their edges carry."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from mneme import circuit_faithfulness, circuit_runs
from mneme.ablated_stream import EdgeAblation
from mneme.batch import Batch
from mneme.circuit_faithfulness import check_gap, faithfulness
from mneme.circuits import Circuit, find_circuit
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import edge_scores
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.readouts import logit_difference
from tests import planted
from tests.architectures import VOCABULARY, tiny
from tests.naive_edges import NAMES, Activations, NaiveEdges

READOUT = logit_difference(torch.arange(2) + 3, torch.arange(2) + 9)


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64, num_hidden_layers=2), name, None, "cpu")


def pair(*, padded: bool = True) -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 2, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 6 if padded else 8])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def graph_of(lm: LanguageModel) -> EdgeGraph:
    return EdgeGraph.sized(lm.n_layers, lm.n_heads, is_parallel=lm.name in ("gpt_neox", "cohere"))


def drawn(lm: LanguageModel, share: float, seed: int = 0) -> Circuit:
    """A circuit of random edges, not pruned: nodes hang everywhere."""
    graph = graph_of(lm)
    edges = (torch.rand(graph.legal.shape, generator=torch.Generator().manual_seed(seed)) < share) & graph.legal
    return Circuit(graph, edges, int(edges.sum()))


def ablated(naive: NaiveEdges, ablation: EdgeAblation) -> Activations:
    """What every source writes in an ablation; the mean is over the two prompts, where both have the position."""
    other = naive.other

    def value(states: Tensor) -> Tensor:
        if ablation == "zero":
            return torch.zeros_like(states)
        means = states.mean(dim=0, keepdim=True).repeat(len(states), *[1] * (states.ndim - 1))
        means[:, 6:] = states[:1, 6:]  # the second prompt ends before
        return means

    if ablation == "corrupt":
        return other
    return Activations(
        [value(each) for each in other.stream],
        [value(each) for each in other.z],
        [],
        [value(each) for each in other.mlps],
    )


@pytest.mark.parametrize("ablation", ["corrupt", "mean", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_circuits_equal_a_plain_forward_with_the_other_edges_replaced(name: str, ablation: EdgeAblation) -> None:
    lm, (clean, corrupt) = model(name), pair()
    circuits = [drawn(lm, 0.5), drawn(lm, 0.15, seed=1)]
    found = faithfulness(lm, clean, corrupt, READOUT, circuits, ablation=ablation)
    naive = NaiveEdges(lm, clean, corrupt, READOUT)
    values = ablated(naive, ablation)
    for place, circuit in enumerate([*circuits, Circuit(graph_of(lm), torch.zeros_like(circuits[0].edges), 0)]):
        items = found.items[:, place] if place < 2 else found.empty
        assert torch.allclose(items, naive.readout_of(circuit, values), rtol=1e-6, atol=1e-9)
    assert torch.allclose(found.whole, naive.readout_with({}), rtol=1e-9)
    assert float((found.items[:, 0] - found.items[:, 1]).abs().min()) > 1e-6


@pytest.mark.parametrize("ablation", ["corrupt", "mean", "zero"])
def test_the_whole_graph_keeps_everything_and_no_edges_nothing(ablation: EdgeAblation) -> None:
    lm = model("gpt2")
    graph = graph_of(lm)
    circuits = [Circuit(graph, graph.legal, 7), Circuit(graph, torch.zeros_like(graph.legal), 3)]
    found = faithfulness(lm, *pair(), READOUT, circuits, ablation=ablation)
    assert found.f.tolist() == [1.0, 0.0]
    assert found.n_edges.tolist() == [graph.n_edges, 0]
    assert found.n_requested.tolist() == [7, 3]
    if ablation == "corrupt":
        scores = edge_scores(lm, *pair(), READOUT)
        assert torch.allclose(found.whole, scores.clean)
        assert torch.allclose(found.empty, scores.corrupt)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "olmo2", "cohere", "gpt_oss", "opt", "deepseek_v3"])
def test_a_run_of_all_edges_is_the_model_also_where_it_is_put_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = model(name)
    circuit = Circuit(graph_of(lm), graph_of(lm).legal, 1)
    monkeypatch.setattr(EdgeGraph, "n_edges", property(lambda _: -1))  # else all edges are not run
    for ablation in ("corrupt", "zero"):
        found = faithfulness(lm, *pair(), READOUT, [circuit], ablation=ablation)  # type: ignore[arg-type]
        assert torch.allclose(found.items[:, 0], found.whole, rtol=1e-6, atol=1e-9)
        assert float((found.empty - found.whole).abs().min()) > 1e-4
    monkeypatch.setattr(circuit_runs, "CHUNK_ELEMENTS", 1)  # one position at a time
    chunked = faithfulness(lm, *pair(), READOUT, [circuit])
    assert torch.allclose(chunked.items[:, 0], chunked.whole, rtol=1e-6, atol=1e-9)


def test_the_planted_copier_s_path_keeps_everything() -> None:
    lm = LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")
    tokens = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
    pair = torch.tensor([tokens]), torch.tensor([[*tokens[:2], 20, *tokens[3:]]])
    readout = logit_difference(torch.tensor([12]), torch.tensor([14]))
    circuit = find_circuit(edge_scores(lm, *pair, readout, "eap-ig-inputs", 20), 3)
    assert circuit.edge_names() == ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"]
    broken = Circuit(circuit.graph, circuit.edges.clone().index_fill(0, torch.tensor(0), value=False), 3)
    found = faithfulness(lm, *pair, readout, [circuit, broken])
    assert found.f.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_circuits_do_not_depend_on_which_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("llama")
    circuits = [drawn(lm, share, seed) for seed, share in enumerate((0.1, 0.4, 0.7))]
    together = faithfulness(lm, *pair(), READOUT, circuits)
    monkeypatch.setattr(circuit_faithfulness, "items_per_group", lambda *_: 1)
    monkeypatch.setattr(circuit_faithfulness, "circuits_at_once", lambda *_: 1)
    alone = faithfulness(lm, *pair(), READOUT, circuits)
    assert torch.allclose(alone.items, together.items, rtol=1e-9)
    before = lm.logits(pair()[0])
    faithfulness(lm, *pair(), READOUT, circuits)
    assert torch.equal(lm.logits(pair()[0]), before)


def test_what_cannot_be_asked_is_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    with pytest.raises(BadInput, match="no circuit is given"):
        faithfulness(lm, clean, corrupt, READOUT, [])
    other = EdgeGraph.sized(2, 4, is_parallel=True)
    with pytest.raises(BadInput, match="circuit 1 is of another graph than that of gpt2"):
        faithfulness(lm, clean, corrupt, READOUT, [drawn(lm, 0.5), Circuit(other, other.legal, 1)])
    with pytest.raises(BadInput, match="ablation is 'resample': choose one of corrupt, mean, zero"):
        faithfulness(lm, clean, corrupt, READOUT, [drawn(lm, 0.5)], ablation="resample")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        faithfulness(lm, clean, clean, READOUT, [drawn(lm, 0.5)])


def test_a_gap_that_may_be_nothing_is_refused() -> None:
    noise = torch.as_tensor(np.random.default_rng(0).normal(size=40))
    check_gap(noise + 3.0, noise, seed=0)
    check_gap(noise, noise + 3.0, seed=0)
    with pytest.raises(BadInput, match=r"changes the readout by .* which may be nothing"):
        check_gap(noise, torch.zeros(40, dtype=torch.float64), seed=0)
