"""Linear readouts: the minimum that a general optimiser finds, folds that keep groups whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from mneme.errors import NotApplicable
from mneme.linear_readout import Prepared, chosen_strength, fit_logistic, grouped_folds, scores_of

RNG = np.random.default_rng(0)


def loss(weights, features, labels, strength):
    signs = 2 * labels - 1
    margins = signs * (features @ weights[:-1] + weights[-1])
    return strength * np.log1p(np.exp(-margins)).sum() + 0.5 * (weights[:-1] ** 2).sum()


@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_it_finds_the_minimum_that_a_general_optimiser_finds(strength) -> None:
    features = np.random.default_rng(1).normal(size=(60, 4))
    labels = (features[:, 0] + np.random.default_rng(2).normal(size=60) > 0.3).astype(np.int64)
    weights = fit_logistic(features, labels, strength)
    reference = minimize(loss, np.zeros(5), (features, labels, strength), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(weights, reference.x, atol=1e-4)


def test_without_anything_to_learn_the_intercept_is_the_log_odds() -> None:
    labels = np.array([1, 1, 1, 0])
    weights = fit_logistic(np.zeros((4, 2)), labels, 5.0)
    np.testing.assert_allclose(weights, [0, 0, np.log(3)], atol=1e-5)


def test_two_points_far_apart_are_told_apart_by_weights_that_the_penalty_bounds() -> None:
    features, labels = np.array([[-1.0], [1.0]]), np.array([0, 1])
    weight = fit_logistic(features, labels, 1.0)[0]
    assert weight == pytest.approx(2 / (1 + np.exp(weight)), abs=1e-5)  # where penalty and log losses balance


def test_where_it_starts_does_not_matter() -> None:
    features, labels = RNG.normal(size=(50, 3)), RNG.integers(2, size=50)
    far = fit_logistic(features, labels, 0.5, np.array([5.0, -7.0, 3.0, 2.0]))
    np.testing.assert_allclose(far, fit_logistic(features, labels, 0.5), atol=1e-4)


@pytest.mark.parametrize(("n_items", "width"), [(80, 5), (12, 30)])
def test_turning_to_all_main_axes_changes_no_score(n_items, width) -> None:
    features, labels = RNG.normal(size=(n_items, width)) * RNG.uniform(0.1, 9, width), RNG.integers(2, size=n_items)
    standard = (features - features.mean(0)) / features.std(0)
    turned = Prepared.on(features, 99)(features)
    assert turned.shape == (n_items, min(n_items, width))
    plain = scores_of(fit_logistic(standard, labels, 0.1), standard)
    np.testing.assert_allclose(scores_of(fit_logistic(turned, labels, 0.1), turned), plain, atol=1e-5)


def test_the_axes_kept_are_those_of_most_spread_and_a_constant_feature_is_none() -> None:
    one, other = RNG.normal(size=(2, 200))
    features = np.column_stack([one, one + 0.01 * other, np.full(200, 7.0), other])
    prepared = Prepared.on(features, 1)
    assert np.abs(prepared.axes[:, 0]) == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0.1], abs=0.1)
    assert np.isfinite(prepared(features)).all()


def test_no_group_lies_in_two_folds_and_folds_are_of_like_size() -> None:
    groups, labels = np.repeat(np.arange(20), 10), np.tile([0, 1], 100)
    folds = grouped_folds(groups, labels, 5, np.random.default_rng(0))
    assert all(len(set(folds[groups == each])) == 1 for each in range(20))
    assert np.bincount(folds).tolist() == [40] * 5
    other = grouped_folds(groups, labels, 5, np.random.default_rng(1))
    assert (folds != other).any()


def test_groups_that_hold_one_label_each_are_spread_so_that_folds_hold_both() -> None:
    groups = np.repeat(np.arange(20), 5)
    labels = (groups < 10).astype(np.int64)
    folds = grouped_folds(groups, labels, 5, np.random.default_rng(0))
    assert np.bincount(folds[labels == 1]).tolist() == [10] * 5


def test_folds_that_cannot_be_are_refused() -> None:
    labels = np.tile([0, 1], 10)
    with pytest.raises(NotApplicable, match="5 folds need as many groups of prompts, and there are 2"):
        grouped_folds(labels, labels, 5, np.random.default_rng(0))
    rare = np.zeros(20, dtype=np.int64)
    rare[0] = 1
    with pytest.raises(NotApplicable, match="lacks one of the two labels"):
        grouped_folds(np.arange(20), rare, 5, np.random.default_rng(0))


def test_noise_asks_for_a_strong_penalty_and_a_clear_rule_for_a_weak_one() -> None:
    features = RNG.normal(size=(90, 20))
    noise, rule = RNG.integers(2, size=90), (features[:, 0] > 0).astype(np.int64)
    found = [
        chosen_strength(features, labels, np.arange(90), 20, np.random.default_rng(0), (0.001, 0.1, 10.0))
        for labels in (noise, rule)
    ]
    assert found[0] == 0.001
    assert found[1] > 0.001
