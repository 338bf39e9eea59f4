import numpy as np
import pytest
from scipy import stats as scipy_stats

from mneme.errors import BadInput
from mneme.stats import (
    benjamini_hochberg,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_ratio,
    holm,
    mcnemar,
    permutation_p,
    wilson,
)


def test_the_interval_covers_the_truth_in_92_to_97_percent_of_1000_runs():
    samples = np.random.default_rng(5).normal(size=(100, 1000))
    interval = bootstrap_mean(samples, seed=1, n_resamples=10_000)
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    assert 0.92 <= covered <= 0.97


def test_scipy_finds_the_same_interval():
    values = np.random.default_rng(3).exponential(size=80)
    ours = bootstrap_mean(values, seed=0)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width


def test_one_prompt_has_a_mean_but_no_interval():
    interval = bootstrap_mean([[0.25]], seed=0)
    assert interval.estimate[0] == 0.25
    assert np.isnan(interval.low[0])
    assert interval.n_items[0] == 1


def test_missing_items_leave_their_column_and_its_n_only():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan]])
    interval = bootstrap_mean(values, seed=0, n_resamples=200)
    assert interval.n_items.tolist() == [3, 1]
    assert interval.estimate.tolist() == [2.0, 5.0]
    assert np.isnan(interval.low[1])
    assert not np.isnan(interval.low[0])


def test_a_column_of_nothing_is_missing_not_zero():
    interval = bootstrap_mean(np.full((4, 1), np.nan), seed=0)
    assert np.isnan(interval.estimate[0])
    assert interval.n_items[0] == 0


def test_a_constant_column_has_an_interval_of_no_width():
    interval = bootstrap_mean(np.full((10, 2, 3), 0.1), seed=0, n_resamples=500)
    np.testing.assert_array_equal(interval.low, interval.estimate)
    np.testing.assert_array_equal(interval.high, interval.estimate)


def test_columns_share_their_resamples_so_shifted_columns_have_shifted_intervals():
    values = np.random.default_rng(0).normal(size=(30, 1))
    interval = bootstrap_mean(np.hstack([values, values + 7]), seed=4, n_resamples=500)
    assert interval.low[1] - interval.low[0] == pytest.approx(7, abs=1e-12)


def test_prompts_that_repeat_in_clusters_widen_the_interval_by_the_root_of_their_number():
    groups = np.random.default_rng(0).normal(size=50)
    values, clusters = np.repeat(groups, 20), np.repeat(np.arange(50), 20)
    naive = bootstrap_mean(values, seed=0, n_resamples=2000)
    two_level = bootstrap_mean(values, seed=0, clusters=clusters, n_resamples=2000)
    widths = (two_level.high - two_level.low) / (naive.high - naive.low)
    assert widths == pytest.approx(np.sqrt(20), rel=0.15)
    assert two_level.n_clusters == 50


def test_a_single_cluster_gives_no_interval():
    interval = bootstrap_mean(np.arange(10.0), seed=0, clusters=np.zeros(10))
    assert np.isnan(interval.low)
    assert interval.estimate == 4.5


def test_the_cluster_bootstrap_covers_the_truth_where_the_naive_one_fails():
    rng = np.random.default_rng(2)
    n_clusters, per_cluster, runs = 40, 5, 300
    shared = np.repeat(rng.normal(size=(n_clusters, runs)), per_cluster, axis=0)
    values = shared + 0.3 * rng.normal(size=shared.shape)
    clusters = np.repeat(np.arange(n_clusters), per_cluster)
    covered = []
    for groups in (None, clusters):
        interval = bootstrap_mean(values, seed=0, clusters=groups, n_resamples=1000)
        covered.append(np.mean((interval.low <= 0) & (interval.high >= 0)))
    assert covered[0] < 0.8
    assert covered[1] > 0.89


def test_a_ratio_of_proportional_readouts_is_exact():
    denominator = np.random.default_rng(0).uniform(1, 2, size=40)
    interval = bootstrap_ratio(0.3 * denominator, denominator, seed=0, n_resamples=500)
    assert interval.low == pytest.approx(0.3, abs=1e-12)
    assert interval.high == pytest.approx(0.3, abs=1e-12)


def test_a_ratio_agrees_with_scipy_on_paired_data():
    rng = np.random.default_rng(1)
    denominator = rng.uniform(1, 3, size=60)
    numerator = 0.5 * denominator + rng.normal(0, 0.3, size=60)
    ours = bootstrap_ratio(numerator, denominator, seed=0)
    theirs = scipy_stats.bootstrap(
        (numerator, denominator),
        lambda upper, lower, axis: upper.mean(axis) / lower.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=5e-3)
    assert ours.high == pytest.approx(theirs.high, abs=5e-3)


def test_a_ratio_over_a_denominator_around_zero_has_no_interval():
    denominator = np.random.default_rng(0).normal(0.01, 1, size=50)
    assert np.isnan(bootstrap_ratio(np.ones(50), denominator, seed=0, n_resamples=500).low)


def test_scipy_finds_the_same_interval_of_a_median():
    for n_items in (40, 41):
        values = np.random.default_rng(5).exponential(size=n_items)
        found = bootstrap_median(values, seed=1)
        theirs = scipy_stats.bootstrap(
            (values,), np.median, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
        ).confidence_interval
        assert float(found.estimate) == np.median(values)
        assert (float(found.low), float(found.high)) == pytest.approx((theirs.low, theirs.high), abs=0.05)
        assert (int(found.n_items), int(found.n_clusters)) == (n_items, n_items)


def test_a_median_of_clusters_that_agree_within_moves_with_the_clusters_alone():
    values, clusters = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 20), np.repeat(np.arange(5), 20)
    found = bootstrap_median(values, seed=0, clusters=clusters)
    alone = bootstrap_median([1.0, 2.0, 3.0, 4.0, 5.0], seed=0)
    assert (float(found.low), float(found.high)) == (float(alone.low), float(alone.high))
    assert int(found.n_clusters) == 5


def test_a_median_leaves_missing_items_out_and_is_missing_without_any():
    found = bootstrap_median([np.nan, 7.0, np.nan], seed=0)
    assert (float(found.estimate), int(found.n_items)) == (7.0, 1)
    assert np.isnan(found.low)
    assert np.isnan(bootstrap_median([np.nan], seed=0).estimate)
    with pytest.raises(BadInput, match=r"\[item\]"):
        bootstrap_median(np.ones((2, 2)), seed=0)


def test_the_same_seed_gives_the_same_digits_and_another_seed_others():
    values = np.random.default_rng(0).normal(size=(20, 3))
    first, again, other = (bootstrap_mean(values, seed=seed, n_resamples=300) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.low, again.low)
    assert not np.array_equal(first.low, other.low)


@pytest.mark.parametrize(
    ("successes", "n_items", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (250, 500, 0.4563, 0.5437), (100, 100, 0.9630, 1.0)],
)
def test_wilson_matches_the_known_intervals(successes, n_items, low, high):
    assert wilson(successes, n_items) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_is_missing():
    assert np.isnan(wilson(0, 0)).all()


def test_a_permutation_p_counts_the_observation_itself():
    assert permutation_p(10.0, np.zeros(999)) == 0.001
    assert permutation_p(0.0, np.zeros(9)) == 1.0
    assert np.isnan(permutation_p(1.0, []))
    assert permutation_p(1.0, [np.nan, 0.0]) == 0.5


def test_benjamini_hochberg_rejects_four_where_holm_rejects_one():
    p_values = [0.01, 0.02, 0.03, 0.04]
    assert (benjamini_hochberg(p_values) <= 0.05).sum() == 4
    assert (holm(p_values) <= 0.05).tolist() == [True, False, False, False]


def test_a_missing_p_is_not_part_of_the_family():
    assert holm([0.04, np.nan])[0] == 0.04
    assert np.isnan(holm([0.04, np.nan])[1])
    assert benjamini_hochberg([np.nan, 0.03])[1] == 0.03


def test_a_p_of_zero_is_refused():
    with pytest.raises(BadInput, match=r"\(0, 1\]"):
        holm([0.0, 0.5])


def test_mcnemar_is_the_exact_binomial_of_the_answers_that_differ():
    first = np.array([1] * 8 + [0] * 2 + [1] * 5)
    second = np.array([0] * 8 + [1] * 2 + [1] * 5)
    assert mcnemar(first, second) == pytest.approx(scipy_stats.binomtest(8, 10).pvalue)
    assert mcnemar(first, first) == 1.0


def test_resamples_that_are_remembered_give_the_interval_of_those_drawn_anew(monkeypatch: pytest.MonkeyPatch):
    values, clusters = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 7
    first, again = (bootstrap_mean(values, seed=3, clusters=clusters, n_resamples=500) for _ in range(2))
    other_seed = bootstrap_mean(values, seed=4, clusters=clusters, n_resamples=500)
    monkeypatch.setattr("mneme.stats._REMEMBERED", 0)
    anew = bootstrap_mean(values, seed=3, clusters=clusters, n_resamples=500)
    assert np.array_equal(first.low, anew.low)
    assert np.array_equal(again.high, anew.high)
    assert not np.array_equal(other_seed.low, anew.low)
