"""Intervals of means: no number of theirs leaves what was measured, not by rounding either."""

import numpy as np
import pytest

from mneme.intervals import mean_of, mean_within
from mneme.stats import bootstrap_mean


@pytest.mark.parametrize("n_items", [20, 36, 163])
def test_a_rate_ends_at_zero_and_at_one_where_rounding_puts_its_resamples_beside_them(n_items: int) -> None:
    right = (np.arange(n_items)[:, None] < np.arange(1, 6)).astype(float)  # 1 to 5 of them
    rounded, kept = bootstrap_mean(right, seed=0), mean_within(right, None, 0)
    assert np.abs(rounded.low[:3]).max() < 1e-15  # what the sums leave, to either side
    assert kept.low[:3].tolist() == [0.0] * 3
    assert mean_within(1 - right, None, 0).high[:3].tolist() == [1.0] * 3


def test_inside_what_was_measured_nothing_changes() -> None:
    values = np.random.default_rng(0).normal(size=(40, 5))
    clusters = np.arange(40) // 4
    kept, plain = mean_within(values, clusters, 3), bootstrap_mean(values, seed=3, clusters=clusters)
    for ours, theirs in ((kept.estimate, plain.estimate), (kept.low, plain.low), (kept.high, plain.high)):
        assert ours.tolist() == theirs.tolist()


def test_missing_items_and_no_items_stay_missing() -> None:
    found = mean_within(np.array([[0.5, np.nan], [0.25, np.nan]]), None, 0)
    assert found.estimate[0] == 0.375
    assert np.isnan([found.estimate[1], found.low[1], found.high[1]]).all()
    assert np.isnan(mean_within(np.empty((0, 2)), None, 0).estimate).all()


@pytest.mark.parametrize(("right", "end"), [(0, "low"), (36, "high")])
def test_wilsons_interval_ends_exactly_at_no_and_at_every_right_answer(right: int, end: str) -> None:
    found = mean_of((np.arange(36) < right).astype(float), None, 0, is_share=True)
    assert float(getattr(found, end)) == (0.0 if right == 0 else 1.0)
