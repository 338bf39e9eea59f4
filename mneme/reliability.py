"""Split-half reliability of head scores: would other prompts of the same kind rank the heads the same way?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from mneme.errors import BadInput

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Mean Spearman r between halves, its Spearman-Brown step-up, and the overlap of the halves' top heads.

    split_half in -1..1, spearman_brown at most 1 (far below -1 for halves that contradict each other), top_k_jaccard in
    0..1; NaN where not measurable.
    """

    split_half: float
    spearman_brown: float
    top_k: int
    top_k_jaccard: float
    n_items: int


def spearman_brown(r: float) -> float:
    """Reliability of the whole from the correlation of its halves, 2r / (1 + r); NaN for r = -1."""
    return float("nan") if np.isnan(r) or r <= -1 else float(2 * r / (1 + r))


def default_top_k(n_heads: int) -> int:
    """5 heads (METHODS 4) where that is at most a quarter of them, else a quarter, at least one."""
    return min(5, max(1, n_heads // 4))


def split_half(
    scores: ArrayLike,
    *,
    seed: int,
    top_k: int | None = None,
    clusters: ArrayLike | None = None,
    n_splits: int = 100,
) -> Reliability:
    """Reliability of scores [item ...] over random splits of the prompts into halves.

    Clusters are never split. NaN items leave their head's mean; a head missing in a half leaves that split. Fewer
    than four prompts (or clusters), fewer than three heads, or constant scores give NaN.
    Source: METHODS 4 (100 splits, Spearman with average ranks, Spearman-Brown, top-k Jaccard).
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim < 2:
        raise BadInput("reliability needs scores [item layer head]")
    table = array.reshape(len(array), -1)
    groups = np.arange(len(table)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    k = default_top_k(table.shape[1]) if top_k is None else top_k
    n_items = int((~np.isnan(table)).any(axis=1).sum())
    if len(np.unique(groups)) < 4:
        return Reliability(np.nan, np.nan, k, np.nan, n_items)
    rng = np.random.default_rng(seed)
    found = [_one_split(table, _half(groups, rng), k) for _ in range(n_splits)]
    r, overlap = (_mean_of_defined(np.array(column)) for column in zip(*found, strict=True))
    return Reliability(r, spearman_brown(r), k, overlap, n_items)


def _half(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    names = rng.permutation(np.unique(groups))
    return np.isin(groups, names[: len(names) // 2])


def _one_split(table: Array, half: NDArray[np.bool_], k: int) -> tuple[float, float]:
    first, second = _mean_items(table[half]), _mean_items(table[~half])
    both = ~(np.isnan(first) | np.isnan(second))
    u, v = first[both], second[both]
    if len(u) < 3:
        return float("nan"), float("nan")
    return spearman(u, v), top_k_jaccard(u, v, k)


def _mean_items(table: Array) -> Array:
    counted = (~np.isnan(table)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nansum(table, axis=0) / counted)


def _mean_of_defined(values: Array) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's r with average ranks for ties; NaN when one of the two is constant."""
    u, v = rankdata(np.asarray(first)), rankdata(np.asarray(second))
    if np.ptp(u) == 0 or np.ptp(v) == 0:
        return float("nan")
    return float(np.corrcoef(u, v)[0, 1])


def top_k_jaccard(first: ArrayLike, second: ArrayLike, k: int) -> float:
    """Shared / united members of the two top-k lists, ties in index order; NaN unless 1 <= k < number of heads."""
    u, v = np.asarray(first), np.asarray(second)
    if not 1 <= k < len(u):
        return float("nan")
    top = [set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (u, v)]
    return len(top[0] & top[1]) / len(top[0] | top[1])
