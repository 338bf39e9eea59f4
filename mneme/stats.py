"""Statistics of METHODS 4: bootstrap intervals, proportions, reliability, p-values and multiple comparisons.

The unit of resampling is the prompt. Everything works on stored items; no model runs here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from mneme.errors import BadInput

Array = NDArray[np.float64]
RESAMPLES = 10_000
_COLUMNS_AT_ONCE = 512
_DRAWS_AT_ONCE = 4_000_000
_REMEMBERED = 2_000  # items up to which the resamples of a seed are kept for the next values


@dataclass(frozen=True)
class Interval:
    """A mean (or ratio) with its percentile interval, one per trailing cell of the data.

    Shape: estimate, low, high, n_items, n_clusters all have the trailing shape of the values; low and high are NaN
    with fewer than two prompts (or clusters), the estimate with none.
    """

    estimate: Array
    low: Array
    high: Array
    n_items: NDArray[np.int64]
    n_clusters: NDArray[np.int64]


def bootstrap_mean(
    values: ArrayLike,
    *,
    seed: int,
    clusters: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Mean over prompts with a percentile bootstrap interval.

    Shape: values [item ...]; clusters [item] makes it two-level (clusters first, then prompts inside them).
    NaN items leave their column and its n. Columns with the same missing items share the same resamples, so that
    differences between heads are paired.
    Source: METHODS 4 (R = 10,000, percentile).
    """
    table, trailing = _as_table(values)
    ones = np.ones_like(table)
    return _bootstrap(table, ones, _Plan(seed, _as_clusters(clusters, len(table)), n_resamples, confidence), trailing)


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    seed: int,
    clusters: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Ratio of the means of two readouts of the same prompts; both are resampled together.

    Shape: numerator, denominator [item ...]. An item missing in one is left out of both. The interval is NaN where
    the resampled denominator reaches or crosses zero: no bounded interval exists there.
    """
    upper, trailing = _as_table(numerator)
    lower, lower_trailing = _as_table(denominator)
    if upper.shape != lower.shape or trailing != lower_trailing:
        raise BadInput(f"numerator {upper.shape} and denominator {lower.shape} must have the same items and cells")
    return _bootstrap(upper, lower, _Plan(seed, _as_clusters(clusters, len(upper)), n_resamples, confidence), trailing)


def bootstrap_median(
    values: ArrayLike,
    *,
    seed: int,
    clusters: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Median over prompts with a percentile bootstrap interval; otherwise as `bootstrap_mean`, of values [item].

    Source: METHODS 9 (group value), 4 (R = 10,000, percentile).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise BadInput(f"a median needs values [item], not {array.shape}")
    kept = np.flatnonzero(~np.isnan(array))
    groups = _as_clusters(clusters, len(array))[kept]
    estimate, low, high = (np.array(np.nan) for _ in range(3))
    if len(kept):
        estimate = np.array(np.median(array[kept]))
    n_groups = len(np.unique(groups))
    if n_groups >= 2:
        order = np.argsort(array[kept], kind="stable")
        plan = _Plan(seed, groups, n_resamples, confidence)
        medians = [_medians(array[kept][order], counts[:, order]) for counts in _resample_counts(groups, plan)]
        tail = (1 - confidence) / 2
        low, high = np.quantile(np.concatenate(medians), [tail, 1 - tail])
    return Interval(estimate, np.asarray(low), np.asarray(high), np.array(len(kept)), np.array(n_groups))


def _medians(ascending: Array, counts: Array) -> Array:
    """Median of each resample, in which value i stands counts[resample, i] times: [resample]."""
    upto = counts.cumsum(axis=1)
    n_drawn = upto[:, -1:]
    below, above = (
        ascending[(upto > middle).argmax(axis=1)] for middle in (np.floor((n_drawn - 1) / 2), np.floor(n_drawn / 2))
    )
    return np.asarray((below + above) / 2)


@dataclass(frozen=True)
class _Plan:
    seed: int
    clusters: NDArray[np.int64]
    n_resamples: int
    confidence: float


def _as_table(values: ArrayLike) -> tuple[Array, tuple[int, ...]]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0:
        raise BadInput("a bootstrap needs values [item ...], not a single number")
    return array.reshape(len(array), int(np.prod(array.shape[1:]))), array.shape[1:]


def _as_clusters(clusters: ArrayLike | None, n_items: int) -> NDArray[np.int64]:
    if clusters is None:
        return np.arange(n_items)
    labels = np.asarray(clusters)
    if labels.shape != (n_items,):
        raise BadInput(f"clusters must name one group per item ({n_items}), not {labels.shape}")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _bootstrap(upper: Array, lower: Array, plan: _Plan, trailing: tuple[int, ...]) -> Interval:
    cells = upper.shape[1]
    estimate, low, high = (np.full(cells, np.nan) for _ in range(3))
    n_items, n_clusters = np.zeros(cells, dtype=np.int64), np.zeros(cells, dtype=np.int64)
    present = ~(np.isnan(upper) | np.isnan(lower))
    for kept, columns in _columns_by_pattern(present):
        n_items[columns], n_clusters[columns] = len(kept), len(np.unique(plan.clusters[kept]))
        if len(kept) == 0:
            continue
        top, bottom = upper[np.ix_(kept, columns)], lower[np.ix_(kept, columns)]
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate[columns] = _mean(top) / _mean(bottom)
        if n_clusters[columns[0]] >= 2:
            low[columns], high[columns] = _percentiles(top, bottom, plan, plan.clusters[kept])
    parts = (estimate, low, high, n_items, n_clusters)
    return Interval(*(part.reshape(trailing) for part in parts))  # type: ignore[arg-type]


def _columns_by_pattern(present: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Items that count and the columns where exactly these count, a bounded number of columns at a time."""
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        columns = np.flatnonzero(which.reshape(-1) == index)
        for start in range(0, len(columns), _COLUMNS_AT_ONCE):
            yield np.flatnonzero(patterns[:, index]), columns[start : start + _COLUMNS_AT_ONCE]


def _mean(table: Array) -> Array:
    # Deviations from the first prompt are averaged: a constant column then has exactly its constant as mean, and
    # an interval of exactly zero width.
    return np.asarray(table[0] + (table - table[0]).mean(axis=0))


def _percentiles(top: Array, bottom: Array, plan: _Plan, clusters: NDArray[np.int64]) -> tuple[Array, Array]:
    top_mean, bottom_mean = _mean(top), _mean(bottom)
    ratios = np.empty((plan.n_resamples, top.shape[1]))
    crosses = np.zeros(top.shape[1], dtype=np.bool_)
    done = 0
    for counts in _resample_counts(clusters, plan):
        drawn = counts.sum(axis=1, keepdims=True)
        upper = top_mean + counts @ (top - top_mean) / drawn
        lower = bottom_mean + counts @ (bottom - bottom_mean) / drawn
        crosses |= (lower * np.sign(bottom_mean) <= 0).any(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[done : done + len(counts)] = upper / lower
        done += len(counts)
    ratios[:, crosses] = np.nan
    tail = (1 - plan.confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], axis=0)
    return low, high


def _resample_counts(clusters: NDArray[np.int64], plan: _Plan) -> Iterator[Array]:
    """How often each item is drawn in each resample: blocks [resample item]."""
    alike = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    if len(alike) > _REMEMBERED:
        yield from _drawn(alike, plan.seed, plan.n_resamples)
    else:
        for counts in _remembered(alike.tobytes(), plan.seed, plan.n_resamples):
            yield counts.astype(np.float64)


@lru_cache(maxsize=32)
def _remembered(clusters: bytes, seed: int, n_resamples: int) -> list[NDArray[np.unsignedinteger]]:
    # To draw costs ten times as much as to use what was drawn, and one seed serves all the values of a study.
    blocks = _drawn(np.frombuffer(clusters, dtype=np.int64), seed, n_resamples)
    return [counts.astype(np.min_scalar_type(int(counts.max()))) for counts in blocks]


def _drawn(clusters: NDArray[np.int64], seed: int, n_resamples: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(clusters == each) for each in np.unique(clusters)]
    block = max(1, _DRAWS_AT_ONCE // len(clusters))
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        times = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=size)
        if len(members) == len(clusters):
            order = np.concatenate(members)
            counts = np.empty((size, len(clusters)))
            counts[:, order] = times
        else:
            counts = np.zeros((size, len(clusters)))
            for cluster, items in enumerate(members):
                within = np.full(len(items), 1 / len(items))
                counts[:, items] = rng.multinomial(times[:, cluster] * len(items), within)
        yield counts


def wilson(successes: int, n_items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson interval of a proportion; (NaN, NaN) of nothing."""
    if not 0 <= successes <= n_items:
        raise BadInput(f"{successes} successes of {n_items}: a proportion lies between 0 and 1")
    if n_items == 0:
        return float("nan"), float("nan")
    interval = scipy_stats.binomtest(successes, n_items).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def permutation_p(observed: float, null: ArrayLike) -> float:
    """One-sided p = (1 + #{null >= observed}) / (R + 1); NaN without a null or an observation, never 0."""
    draws = np.asarray(null, dtype=np.float64).reshape(-1)
    draws = draws[~np.isnan(draws)]
    if len(draws) == 0 or np.isnan(observed):
        return float("nan")
    return float((1 + np.count_nonzero(draws >= observed)) / (len(draws) + 1))


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values (family-wise error), NaN passed through and not counted in the family."""
    return _adjust(p_values, _holm_ranked)


def _holm_ranked(p_values: Array) -> Array:
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p-values (false discovery rate), NaN passed through and not counted."""
    return _adjust(p_values, scipy_stats.false_discovery_control)


def _adjust(p_values: ArrayLike, adjust: object) -> Array:
    array = np.asarray(p_values, dtype=np.float64)
    present = ~np.isnan(array)
    if ((array[present] <= 0) | (array[present] > 1)).any():
        raise BadInput("p-values lie in (0, 1]; a p of 0 comes from counting the null without the observation")
    adjusted = np.full_like(array, np.nan)
    if present.any():
        adjusted[present] = adjust(array[present])  # type: ignore[operator]
    return adjusted


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided McNemar p of two paired series of right (1) and wrong (0) answers; 1 when they never differ."""
    one, two = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
    if one.shape != two.shape:
        raise BadInput(f"McNemar compares the same prompts: {one.shape} and {two.shape} differ")
    only_one, only_two = int((one & ~two).sum()), int((~one & two).sum())
    if only_one + only_two == 0:
        return 1.0
    return float(scipy_stats.binomtest(only_one, only_one + only_two, 0.5).pvalue)
