"""Means of prompts with the interval that fits their values, and what entered them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mneme.probe import Probe
from mneme.stats import Interval, bootstrap_mean, bootstrap_median, wilson

Array = NDArray[np.float64]
_ROUNDING = 1e-12  # of the largest value: far above what float64 sums leave, far below what was measured


def mean_within(values: Array, clusters: Array | None, seed: int) -> Interval:
    """Mean over prompts of values [item ...], bootstrapped, with nothing beyond the least and greatest value.

    A mean of resampled values never leaves them; rounding of the sums does, by 1e-17 or so, and then a rate lies below
    0, or just above it where it is 0. What is nearer to an end than 1e-12 of the largest value is that end.
    Source: METHODS 4
    """
    interval = bootstrap_mean(values, seed=seed, clusters=clusters)
    if not len(values):
        return interval
    least, most = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)  # NaN only where all are
    rounding = _ROUNDING * np.maximum(np.abs(least), np.abs(most))

    def without_rounding(number: Array) -> Array:
        number = np.where(np.abs(number - least) <= rounding, least, number)
        return np.where(np.abs(number - most) <= rounding, most, number)

    estimate, low, high = (without_rounding(each) for each in (interval.estimate, interval.low, interval.high))
    return replace(interval, estimate=estimate, low=low, high=high)


def mean_of(values: Array, clusters: Array | None, seed: int, *, is_share: bool = False) -> Interval:
    """Mean over prompts of values [item ...]: bootstrapped, or Wilson's interval for shares of right or wrong answers.

    Wilson's is taken where `is_share` says what the values are, all of them are 0 or 1, and no clusters tie prompts
    together.
    Source: METHODS 4
    """
    present = ~np.isnan(values)
    if not is_share or clusters is not None or not np.isin(values[present], (0.0, 1.0)).all():
        return mean_within(values, clusters, seed)
    n_items, right = present.sum(axis=0), np.nansum(values, axis=0)
    pairs = zip(right.reshape(-1).astype(int).tolist(), n_items.reshape(-1).tolist(), strict=True)
    low, high = np.clip([wilson(*pair) for pair in pairs], 0.0, 1.0).T.reshape(2, *n_items.shape)
    estimate = np.divide(right, n_items, out=np.full(n_items.shape, np.nan), where=n_items > 0)
    return Interval(estimate, low, high, n_items, n_items)


def readouts_of(probe: Probe, values: Array, clusters: Array | None, seed: int) -> dict[str, Interval]:
    """The numbers that a behavior probe's items [item] become, by readout: their mean, or their median and the mean."""
    mean = mean_of(values, clusters, seed, is_share=probe.is_accuracy)
    if probe.group == "mean":
        return {probe.name: mean}
    return {probe.name: bootstrap_median(values, seed=seed, clusters=clusters), f"{probe.name}_mean": mean}


def n_clusters_of(interval: Interval, clusters: Array | None) -> Array:
    """Clusters that entered each mean; NaN where every prompt stands for itself, and where none was measured."""
    is_known = np.full(interval.n_clusters.shape, clusters is not None) & (interval.n_items > 0)
    return np.where(is_known, interval.n_clusters.astype(np.float64), np.nan)


def numbers_of(interval: Interval, clusters: Array | None) -> dict[str, float | int]:
    """A single number with its interval and what entered it, as columns of a row."""
    return {
        "value": float(interval.estimate),
        "ci_low": float(interval.low),
        "ci_high": float(interval.high),
        "n_items": int(interval.n_items),
        "n_clusters": float(n_clusters_of(interval, clusters)),
    }
