import numpy as np
import pytest

from mneme.reliability import default_top_k, spearman, spearman_brown, split_half, top_k_jaccard


def test_spearman_brown_matches_the_known_values():
    assert spearman_brown(0.5) == pytest.approx(0.6667, abs=5e-5)
    assert spearman_brown(0.8) == pytest.approx(0.8889, abs=5e-5)
    assert np.isnan(spearman_brown(-1.0))


def test_noise_has_a_reliability_of_zero():
    found = [split_half(np.random.default_rng(seed).normal(size=(40, 12, 12)), seed=0).split_half for seed in range(6)]
    assert abs(np.mean(found)) < 3 * 0.084 / np.sqrt(6)


def test_heads_that_differ_more_than_prompts_do_are_reliable():
    heads = np.linspace(0, 1, 24).reshape(1, 4, 6)
    scores = heads + 0.3 * np.random.default_rng(0).normal(size=(30, 4, 6))
    found = split_half(scores, seed=0)
    assert 0.9 < found.split_half < found.spearman_brown < 1
    assert found.top_k == 5
    assert 0.5 < found.top_k_jaccard <= 1


def test_three_prompts_cannot_be_split_in_halves_worth_comparing():
    found = split_half(np.random.default_rng(0).normal(size=(3, 2, 8)), seed=0)
    assert np.isnan(found.split_half)
    assert np.isnan(found.top_k_jaccard)
    assert found.n_items == 3


def test_constant_scores_have_no_correlation():
    assert np.isnan(split_half(np.ones((10, 2, 8)), seed=0).split_half)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_a_head_that_was_never_measured_leaves_the_comparison():
    scores = np.linspace(0, 1, 16) + 0.001 * np.random.default_rng(0).normal(size=(20, 16))
    scores[:, 3] = np.nan
    assert split_half(scores, seed=0).split_half > 0.99


def test_clusters_are_never_split():
    # Two prompts of a cluster are equal and clusters are pure noise: only a split inside clusters looks reliable.
    noise = np.random.default_rng(0).normal(size=(6, 40))
    scores, clusters = np.repeat(noise, 30, axis=0), np.repeat(np.arange(6), 30)
    assert split_half(scores, seed=0).split_half > 0.8
    assert split_half(scores, seed=0, clusters=clusters).split_half < 0.3


def test_ties_of_the_top_go_to_the_lower_index_and_full_lists_have_no_overlap_to_report():
    assert top_k_jaccard([1, 1, 0], [1, 0, 1], 1) == 1.0
    assert np.isnan(top_k_jaccard([1, 2], [1, 2], 2))


def test_the_default_top_is_five_heads_or_a_quarter():
    assert [default_top_k(n) for n in (144, 20, 16, 4, 2)] == [5, 5, 4, 1, 1]
