"""Shares of a behavior that circuits keep, with their intervals over prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mneme.stats import Interval, bootstrap_mean, bootstrap_ratio

Array = NDArray[np.float64]


def shares_of(run: Tensor, kept: Tensor, clusters: Array | None, seed: int) -> Interval:
    """Differences of readouts kept [item ...] over the gap m(whole) - m(empty) of a run [item 2+circuit].

    Prompts are resampled in both together, two-level where they have clusters. NaN where the gap's own interval holds
    0, since a share of nothing means nothing. Source: METHODS 4, 6d
    """
    gap = gap_of(run)
    upper = kept.double().numpy()
    lower = np.broadcast_to(gap.reshape(-1, *[1] * (upper.ndim - 1)), upper.shape)
    found = bootstrap_ratio(upper, lower, seed=seed, clusters=clusters)
    if has_gap(run, clusters, seed):
        return found
    nothing = np.full(found.estimate.shape, np.nan)
    return Interval(nothing, nothing, nothing, found.n_items, found.n_clusters)


def gap_of(run: Tensor) -> Array:
    """m(whole) - m(empty) of each prompt of a run [item 2+circuit]: [item]."""
    return np.asarray((run[:, 0] - run[:, 1]).double().numpy())


def has_gap(run: Tensor, clusters: Array | None, seed: int) -> bool:
    """Whether the interval of a run's mean gap leaves out 0; never with fewer than two prompts or clusters."""
    interval = bootstrap_mean(gap_of(run), seed=seed, clusters=clusters)
    return bool(interval.low > 0) or bool(interval.high < 0)
