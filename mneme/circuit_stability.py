"""Would other prompts of the same kind give the same circuit? Answered from stored scores, without the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.circuit_overlap import Level, members
from mneme.circuits import Circuit, SearchMethod, find_circuit
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import EdgeScores
from mneme.errors import BadInput

RESAMPLES, SPLITS = 1000, 100
MEANS_AT_ONCE = 1 << 24  # edge scores of resamples in memory at once: 128 MiB in float64
STABLE = 0.8  # Jaccard above which circuits of 100 prompts and more are called stable


@dataclass(frozen=True)
class StoredScores:
    """Edge scores by prompt, and how a circuit is found from their mean: all that a circuit found again needs.

    items [item source slot], NaN where there is no edge; clusters [item] names what prompts have in common. The rest
    as in `find_circuit`.
    Raises: BadInput for scores of another graph, a missing score, or clusters of another length.
    """

    graph: EdgeGraph
    items: Tensor
    n_edges: int
    method: SearchMethod = "top-n"
    is_signed: bool = False
    clusters: ArrayLike | None = None

    def __post_init__(self) -> None:
        """Check that every edge has a score for every prompt."""
        one_of("method", self.method, get_args(SearchMethod))
        whole_number("n_edges", self.n_edges, 1)
        shape, wanted = tuple(self.items.shape), tuple(self.graph.legal.shape)
        if shape[1:] != wanted or shape[0] < 1:
            raise BadInput(f"scores by prompt must be [item source slot] with {wanted} of the graph, not {shape}")
        missing = (self.items.isnan().cpu() & self.graph.legal).nonzero().tolist()
        if missing:
            item, source, slot = missing[0]
            name = self.graph.edge_names([(source, slot)])[0]
            raise BadInput(f"the edge {name} has no score for prompt {item}: score all edges with keep_items")
        if self.clusters is not None and np.shape(self.clusters) != shape[:1]:
            raise BadInput(
                f"clusters must name one group for each of {shape[0]} prompts, not {np.shape(self.clusters)}"
            )

    @property
    def groups(self) -> NDArray[np.int64]:
        """The cluster of each prompt, numbered from 0; each its own where none are named: [item]."""
        if self.clusters is None:
            return np.arange(len(self.items))
        return np.unique(np.asarray(self.clusters), return_inverse=True)[1].astype(np.int64)

    def circuits(self, weights: NDArray[np.float64]) -> Iterator[Tensor]:
        """The edges [source slot] of the circuit for each row of weights [draw item] of the prompts."""
        flat = self.items[:, self.graph.legal.to(self.items.device)].double().cpu()
        shares = torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))
        none = torch.empty(0)
        n_at_once = max(1, MEANS_AT_ONCE // flat.shape[1])
        for start in range(0, len(shares), n_at_once):
            for means in shares[start : start + n_at_once] @ flat:
                matrix = torch.full(self.graph.legal.shape, torch.nan, dtype=torch.float64)
                matrix[self.graph.legal] = means
                scores = EdgeScores(matrix, self.graph, none, none)
                yield find_circuit(scores, self.n_edges, self.method, is_signed=self.is_signed).edges

    def circuit(self) -> Circuit:
        """The circuit of all prompts."""
        return Circuit(self.graph, next(self.circuits(np.ones((1, len(self.items))))), self.n_edges)


@dataclass(frozen=True)
class Stability:
    """How alike circuits of resampled prompts are; all in 0 .. 1.

    jaccards [resample]: of each resample's circuit with the one of all prompts; jaccard is their mean, low and high
    the ends of their 95% interval. pairwise: the mean Jaccard of resamples taken two by two, lower, since both vary.
    selected [source slot]: in how many of the resamples an edge is kept, NaN where there is no edge.
    Fewer than two clusters (or prompts) say nothing: all NaN, no jaccards.
    """

    circuit: Circuit
    jaccard: float
    low: float
    high: float
    pairwise: float
    jaccards: NDArray[np.float64]
    selected: Tensor
    n_items: int
    n_clusters: int

    @property
    def is_stable(self) -> bool:
        """Whether the interval lies above 0.8, the bar that bootstrapped circuits are held to."""
        return self.low > STABLE


@dataclass(frozen=True)
class Ceiling:
    """Jaccard of circuits from two halves of the prompts of one task, in 0 .. 1: what an overlap can reach at best.

    jaccard: the mean over the splits; low, high: the middle 95% of them; NaN for fewer than four prompts (clusters).
    n_splits: splits whose halves gave a circuit.
    """

    jaccard: float
    low: float
    high: float
    n_splits: int


def circuit_stability(
    scores: StoredScores, *, seed: int, level: Level = "edge", n_resamples: int = RESAMPLES
) -> Stability:
    """Find the circuit again and again from prompts drawn with replacement, without running the model.

    With clusters, these are drawn first, then prompts inside them: a cluster may be a template, or the seed of a draw
    of prompts where scores of several draws are put together. level: what the Jaccard compares, see `overlap`.
    Two circuits without any edge have no Jaccard; such resamples are left out. Source: METHODS 4, 6; R = 1,000.
    Raises: BadInput for an unknown level or fewer than two resamples.
    """
    one_of("level", level, get_args(Level))
    whole_number("n_resamples", n_resamples, 2)
    circuit, groups = scores.circuit(), scores.groups
    n_clusters = len(np.unique(groups))
    chosen = torch.full(scores.graph.legal.shape, torch.nan, dtype=torch.float64)
    if n_clusters < 2:
        nan = float("nan")
        return Stability(circuit, nan, nan, nan, nan, np.empty(0), chosen, len(groups), n_clusters)
    counts = torch.zeros(scores.graph.legal.shape, dtype=torch.float64)
    whole = members(scores.graph, circuit.edges, level)
    before, found, pairs = whole, [], []
    for place, edges in enumerate(scores.circuits(_resample_counts(groups, n_resamples, seed))):
        counts += edges
        now = members(scores.graph, edges, level)
        found.append(_jaccard(now, whole))
        pairs += [_jaccard(now, before)] if place % 2 else []
        before = now
    jaccards = np.array(found)
    chosen[scores.graph.legal] = counts[scores.graph.legal] / n_resamples
    mean, low, high = _spread(jaccards)
    return Stability(circuit, mean, low, high, _spread(np.array(pairs))[0], jaccards, chosen, len(groups), n_clusters)


def split_half_ceiling(scores: StoredScores, *, seed: int, level: Level = "edge", n_splits: int = SPLITS) -> Ceiling:
    """How much two circuits of one task share when each is found on half of the prompts.

    Clusters are never split. Half the prompts give noisier circuits than all, so that an overlap of circuits of all
    prompts may lie a little higher. Source: METHODS 4, 6e (100 splits).
    Raises: BadInput for an unknown level or no split.
    """
    one_of("level", level, get_args(Level))
    whole_number("n_splits", n_splits, 1)
    groups = scores.groups
    names = np.unique(groups)
    if len(names) < 4:
        return Ceiling(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    halves = np.stack([np.isin(groups, rng.permutation(names)[: len(names) // 2]) for _ in range(n_splits)])
    both = np.stack([halves, ~halves], axis=1).reshape(-1, len(groups)).astype(np.float64)
    found = [members(scores.graph, edges, level) for edges in scores.circuits(both)]
    jaccards = np.array([_jaccard(a, b) for a, b in zip(found[::2], found[1::2], strict=True)])
    return Ceiling(*_spread(jaccards), int(np.count_nonzero(~np.isnan(jaccards))))


def _jaccard(a: Tensor, b: Tensor) -> float:
    n_united = int((a | b).sum())
    return int((a & b).sum()) / n_united if n_united else float("nan")


def _spread(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and the ends of the middle 95% of the values that are there; NaN where none are."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(present, [0.025, 0.975])
    return float(present.mean()), float(low), float(high)


def _resample_counts(groups: NDArray[np.int64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each prompt is drawn in each resample, clusters first and then prompts inside them: [resample item]."""
    rng = np.random.default_rng(seed)
    clusters = [np.flatnonzero(groups == each) for each in np.unique(groups)]
    times = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=n_resamples)
    counts = np.empty((n_resamples, len(groups)))
    for place, items in enumerate(clusters):
        counts[:, items] = rng.multinomial(times[:, place] * len(items), np.full(len(items), 1 / len(items)))
    return counts
