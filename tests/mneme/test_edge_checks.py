"""Edge scores stand beside the exact effects of their top and of random others."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.edge_checks import EdgeCheck, check_edges
from mneme.edge_scoring import EdgeScores, edge_scores
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.readouts import Readout, logit_difference
from tests import planted
from tests.architectures import VOCABULARY, tiny

READOUT = logit_difference(torch.arange(3) + 3, torch.arange(3) + 9)


@cache
def model(name: str = "gpt2") -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64, num_hidden_layers=2), name, None, "cpu")


@cache
def pair() -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([7, 5, 7])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def found(scores: list[float], exact: list[float], n_top: int) -> EdgeCheck:
    edges = torch.arange(2 * len(scores)).reshape(-1, 2)
    is_top = torch.arange(len(scores)) < n_top
    return EdgeCheck(edges, is_top, torch.tensor(scores).double(), torch.tensor([exact, exact]).double())


def test_scores_in_the_order_of_the_effects_correlate_wholly() -> None:
    check = found([4.0, -3.0, 2.0, 1.0, 0.5], [8.0, -9.0, 3.0, 2.0, 1.0], 2)
    assert (check.spearman, check.spearman_random) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (check.sign_agreement, check.recall) == (1.0, 1.0)


def test_sign_and_recall_count_by_hand() -> None:
    check = found([4.0, -3.0, 2.0, 1.0], [-8.0, -1.0, 0.0, 2.0], 3)
    assert check.sign_agreement == pytest.approx(1 / 2)  # of the two top edges that have an effect
    assert check.recall == pytest.approx(2 / 3)  # the effects -8 and -1 are of the top three, 2 is not
    assert check.spearman == pytest.approx(-0.4)  # ranks 4 1 3 2 beside 1 2 3 4: 1 - 6 * 14 / 60


def test_effects_that_tie_share_the_places_that_are_left() -> None:
    assert found([3.0, 2.0, 1.0, 1.0], [5.0, 1.0, 1.0, -1.0], 2).recall == pytest.approx((1 + 1 / 3) / 2)


def test_what_has_no_rank_or_no_sign_is_missing() -> None:
    check = found([3.0, 2.0], [0.0, 0.0], 2)
    assert math.isnan(check.spearman)
    assert math.isnan(check.spearman_random)
    assert math.isnan(check.sign_agreement)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_the_chosen_edges_have_the_effects_that_a_run_of_all_edges_gives_them(name: str) -> None:
    lm, (clean, corrupt) = model(name), pair()
    scores = edge_scores(lm, clean, corrupt, READOUT)
    check = check_edges(lm, clean, corrupt, READOUT, scores, n_top=7, n_random=12, seed=0)
    every = edge_scores(lm, clean, corrupt, READOUT, "exact", keep_items=True)
    assert every.items is not None
    assert torch.allclose(check.items, every.items[:, check.edges[:, 0], check.edges[:, 1]], rtol=1e-9, atol=1e-12)
    size = scores.matrix.abs().nan_to_num(-1.0)
    assert torch.equal(check.scores[:7].abs(), size.flatten().sort(descending=True).values[:7])
    assert check.is_top.tolist() == [True] * 7 + [False] * 12
    assert len({tuple(edge) for edge in check.edges.tolist()}) == 19
    assert bool(scores.graph.legal[check.edges[:, 0], check.edges[:, 1]].all())


def test_one_seed_draws_the_same_edges_and_another_draws_others() -> None:
    lm, pairs = model(), pair()
    scores = edge_scores(lm, *pairs, READOUT)
    drawn = [
        check_edges(lm, *pairs, READOUT, scores, n_top=1, n_random=5, seed=seed).edges.tolist() for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_small_graph_is_checked_whole() -> None:
    lm, pairs = model(), pair()
    scores = edge_scores(lm, *pairs, READOUT, "exact")
    check = check_edges(lm, *pairs, READOUT, scores, n_top=20, n_random=10_000, seed=0)
    assert len(check.edges) == scores.graph.n_edges
    assert torch.allclose(check.scores, check.exact)
    assert (check.spearman, check.sign_agreement, check.recall) == (pytest.approx(1.0), 1.0, pytest.approx(1.0))


def test_a_gradient_that_misses_a_bend_is_told_by_its_check() -> None:
    """The readout is a square around the clean run, where its gradient is 0: the score sees nothing, the run does."""
    lm, (clean, corrupt) = model(), pair()
    here = lm.logits(clean)[torch.arange(3), clean.lengths - 1]

    def square(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        return ((logits - here[items]) ** 2).sum(dim=1)

    bent = Readout("square", "logits", square)
    scores = edge_scores(lm, clean, corrupt, bent)
    assert float(scores.matrix.abs().nan_to_num().max()) < 1e-9
    assert float(check_edges(lm, clean, corrupt, bent, scores, n_top=5, n_random=5, seed=0).exact.min()) > 1e-6


def test_the_planted_copier_s_path_is_recalled() -> None:
    lm = LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")
    tokens = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
    clean, corrupt = torch.tensor([tokens]), torch.tensor([[*tokens[:2], 20, *tokens[3:]]])
    readout = logit_difference(torch.tensor([12]), torch.tensor([14]))
    scores = edge_scores(lm, clean, corrupt, readout, "eap-ig-inputs", 8)
    check = check_edges(lm, clean, corrupt, readout, scores, n_top=3, n_random=20, seed=0)
    assert (check.recall, check.sign_agreement) == (1.0, 1.0)
    path = {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"}
    assert set(scores.graph.edge_names([(source, slot) for source, slot in check.edges[:3].tolist()])) == path


def test_what_cannot_be_checked_is_refused() -> None:
    lm, (clean, corrupt) = model(), pair()
    scores = edge_scores(lm, clean, corrupt, READOUT)
    with pytest.raises(BadInput, match="n_top is 0: give a whole number of at least 1"):
        check_edges(lm, clean, corrupt, READOUT, scores, n_top=0, seed=0)
    with pytest.raises(BadInput, match="n_random is -1"):
        check_edges(lm, clean, corrupt, READOUT, scores, n_random=-1, seed=0)
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        check_edges(lm, clean, clean, READOUT, scores, seed=0)
    other = EdgeScores(scores.matrix, edge_scores(model("gpt_neox"), *pair(), READOUT).graph, clean.ids, clean.ids)
    with pytest.raises(BadInput, match="of another graph than that of gpt2"):
        check_edges(lm, clean, corrupt, READOUT, other, seed=0)
