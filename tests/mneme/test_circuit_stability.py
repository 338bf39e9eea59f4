"""Circuits found again from other draws of the prompts: shares known by hand, and one plain mean for each draw."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch

from mneme.circuit_stability import StoredScores, circuit_stability, split_half_ceiling
from mneme.circuits import find_circuit
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import EdgeScores
from mneme.errors import BadInput

GRAPH = EdgeGraph.sized(2, 2)
PATHS = ("m0", "m1")


def items_of(*rows: tuple[float, float]) -> torch.Tensor:
    """Scores by prompt [item source slot]: of the two edges through m0 and of the two through m1; 0 elsewhere."""
    items = torch.full((len(rows), *GRAPH.legal.shape), torch.nan, dtype=torch.float64)
    items[:, GRAPH.legal] = 0.0
    for item, row in enumerate(rows):
        for mlp, value in zip(PATHS, row, strict=True):
            items[item, 0, GRAPH.slots.index(mlp)] = items[item, GRAPH.sources.index(mlp), -1] = value
    return items


def random_items(n_items: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n_items, *GRAPH.legal.shape, generator=generator)
    return drawn.masked_fill(~GRAPH.legal, torch.nan)


def test_prompts_that_agree_always_give_the_same_circuit() -> None:
    scores = StoredScores(GRAPH, items_of(*[(1.0, 0.1)] * 5), 2)
    found = circuit_stability(scores, seed=0, n_resamples=50)
    assert found.circuit.edge_names() == ["input->m0", "m0->logits"]
    assert (found.jaccard, found.low, found.high, found.pairwise) == (1.0, 1.0, 1.0, 1.0)
    assert found.is_stable
    assert torch.equal(found.selected.nan_to_num(0.0).bool(), found.circuit.edges)
    assert torch.equal(found.selected.isnan(), ~GRAPH.legal)
    assert (found.n_items, found.n_clusters) == (5, 5)


@pytest.mark.parametrize("level", ["edge", "node"])
def test_two_prompts_at_odds_give_the_shares_of_their_draws(level: str) -> None:
    scores = StoredScores(GRAPH, items_of((1.1, 0.0), (0.0, 1.0)), 2)  # m1 wins where the second is drawn twice
    found = circuit_stability(scores, seed=0, level=level, n_resamples=2000)  # type: ignore[arg-type]
    assert found.circuit.edge_names() == ["input->m0", "m0->logits"]
    assert set(found.jaccards) == {0.0, 1.0}
    assert found.jaccard == pytest.approx(0.75, abs=0.04)
    assert found.pairwise == pytest.approx(0.75**2 + 0.25**2, abs=0.05)
    assert (found.low, found.high) == (0.0, 1.0)
    assert not found.is_stable
    assert found.selected[0, GRAPH.slots.index("m0")] == pytest.approx(found.jaccard)
    assert found.selected[0, GRAPH.slots.index("m1")] == pytest.approx(1 - found.jaccard)


def test_clusters_are_drawn_whole() -> None:
    items = items_of(*[(3.0, 0.0)] * 10, *[(0.0, 1.0)] * 10)
    alone = circuit_stability(StoredScores(GRAPH, items, 2), seed=0, n_resamples=500)
    clusters = ["first"] * 10 + ["second"] * 10
    together = circuit_stability(StoredScores(GRAPH, items, 2, clusters=clusters), seed=0, n_resamples=500)
    assert alone.jaccard > 0.95
    assert together.jaccard == pytest.approx(0.75, abs=0.06)
    assert (alone.n_clusters, together.n_clusters) == (20, 2)


def test_a_cluster_weighs_as_much_as_its_prompts() -> None:
    items = items_of(*[(1.0, 0.0)] * 9, (0.0, 5.0))  # m0 wins wherever the nine are drawn at all
    scores = StoredScores(GRAPH, items, 2, clusters=[0] * 9 + [1])
    assert circuit_stability(scores, seed=0, n_resamples=500).jaccard == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("method", ["top-n", "greedy"])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_weighted_draw_is_the_circuit_of_the_mean_of_what_was_drawn(method: str, is_signed: bool) -> None:
    items = random_items(6).double()
    scores = StoredScores(GRAPH, items, 12, method, is_signed)  # type: ignore[arg-type]
    counts = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=8).astype(float)
    for row, edges in zip(counts, scores.circuits(counts), strict=True):
        drawn = items[np.repeat(np.arange(6), row.astype(int))]
        plain = EdgeScores(drawn.mean(dim=0), GRAPH, torch.ones(1), torch.zeros(1))
        assert torch.equal(edges, find_circuit(plain, 12, method, is_signed=is_signed).edges)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_digits_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = StoredScores(GRAPH, random_items(8), 12)
    first = circuit_stability(scores, seed=3, n_resamples=40)
    monkeypatch.setattr("mneme.circuit_stability.MEANS_AT_ONCE", 1)
    again = circuit_stability(scores, seed=3, n_resamples=40)
    assert np.array_equal(first.jaccards, again.jaccards)
    assert not np.array_equal(first.jaccards, circuit_stability(scores, seed=4, n_resamples=40).jaccards)
    assert 0 <= first.low < first.jaccard < first.high <= 1


def test_one_prompt_or_one_cluster_says_nothing_about_others() -> None:
    items = items_of((1.0, 0.0), (1.0, 0.0))
    for scores in (StoredScores(GRAPH, items[:1], 2), StoredScores(GRAPH, items, 2, clusters=[0, 0])):
        found = circuit_stability(scores, seed=0, n_resamples=10)
        assert all(isnan(each) for each in (found.jaccard, found.low, found.high, found.pairwise))
        assert len(found.jaccards) == 0
        assert not found.is_stable
        assert bool(found.selected.isnan().all())


def test_resamples_without_any_edge_are_left_out() -> None:
    scores = StoredScores(GRAPH, items_of((1.0, 0.9), (0.9, 1.0)), 1)  # one edge is no path through an MLP
    found = circuit_stability(scores, seed=0, n_resamples=10)
    assert found.circuit.n_edges == 0
    assert isnan(found.jaccard)


def test_halves_at_odds_bring_the_ceiling_down_by_their_share() -> None:
    rows = [(1.1, 0.0)] * 2 + [(0.0, 1.0)] * 2  # one of the three ways to halve them sets the two kinds apart
    found = split_half_ceiling(StoredScores(GRAPH, items_of(*rows), 2), seed=0, n_splits=600)
    assert found.jaccard == pytest.approx(2 / 3, abs=0.06)
    assert (found.low, found.high, found.n_splits) == (0.0, 1.0, 600)
    agreed = split_half_ceiling(StoredScores(GRAPH, items_of(*[(1.0, 0.0)] * 4), 2), seed=0)
    assert (agreed.jaccard, agreed.n_splits) == (1.0, 100)


def test_halves_never_split_a_cluster() -> None:
    rows = [(1.1, 0.0), (0.0, 1.0)] * 4
    clusters = np.repeat(np.arange(4), 2)  # each cluster holds one of both, so all halves agree
    found = split_half_ceiling(StoredScores(GRAPH, items_of(*rows), 2, clusters=clusters), seed=0, n_splits=50)
    assert (found.low, found.jaccard) == (1.0, 1.0)
    alone = split_half_ceiling(StoredScores(GRAPH, items_of(*rows), 2), seed=0, n_splits=50)
    assert alone.jaccard < 1.0


def test_three_prompts_have_no_halves() -> None:
    found = split_half_ceiling(StoredScores(GRAPH, random_items(3), 5), seed=0)
    assert isnan(found.jaccard)
    assert found.n_splits == 0


def test_noise_reaches_the_overlap_of_chance() -> None:
    noise = split_half_ceiling(StoredScores(GRAPH, random_items(40), 12), seed=0)
    signal = random_items(1, seed=9) + 0.05 * random_items(40)
    assert noise.jaccard < 0.4
    assert split_half_ceiling(StoredScores(GRAPH, signal, 12), seed=0).jaccard > 0.9


def test_scores_that_do_not_fit_are_refused() -> None:
    items = random_items(3)
    holed = items.clone()
    holed[1, 0, GRAPH.slots.index("m1")] = torch.nan
    with pytest.raises(BadInput, match="the edge input->m1 has no score for prompt 1"):
        StoredScores(GRAPH, holed, 5)
    with pytest.raises(BadInput, match=r"must be \[item source slot\] with \(7, 15\) of the graph, not \(7, 15\)"):
        StoredScores(GRAPH, items[0], 5)
    with pytest.raises(BadInput, match=r"with \(7, 11\) of the graph, not \(3, 7, 15\)"):
        StoredScores(EdgeGraph.sized(2, 2, 1), items, 5)
    with pytest.raises(BadInput, match="clusters must name one group for each of 3 prompts"):
        StoredScores(GRAPH, items, 5, clusters=[0, 1])
    with pytest.raises(BadInput, match="n_edges is 0: give a whole number of at least 1"):
        StoredScores(GRAPH, items, 0)
    with pytest.raises(BadInput, match="method is 'best': choose one of top-n, greedy"):
        StoredScores(GRAPH, items, 5, "best")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="level is 'head': choose one of edge, node"):
        circuit_stability(StoredScores(GRAPH, items, 5), seed=0, level="head")  # type: ignore[arg-type]
