"""Circuits of several behaviors of one model beside each other: what they share, and what each does for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mneme.ablated_stream import EdgeAblation
from mneme.circuit_findings import CircuitFindings, share_kept
from mneme.circuit_measures import stored_scores
from mneme.circuit_overlap import Level, members, overlap, score_cosine, set_overlap
from mneme.circuit_quality import complement, random_circuits
from mneme.circuit_search import Halves
from mneme.circuit_shares import shares_of
from mneme.circuit_stability import split_half_ceiling
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.model import LanguageModel
from mneme.promptset import Promptset

Array = NDArray[np.float64]
Row = dict[str, Any]
LEVELS: tuple[Level, ...] = get_args(Level)
N_DRAWS = 20  # random circuits of each size
_NAN = float("nan")
_CROSSED = ("cross_faithfulness", "cross_low", "cross_high", "dissociation", "dissociation_low", "dissociation_high")


@dataclass(frozen=True)
class Searched:
    """One search for circuits: its findings, how circuits were taken from the scores, the clusters of its prompts."""

    found: CircuitFindings
    search: str
    clusters: Array | None

    @property
    def circuit(self) -> Circuit | None:
        """The circuit that stands for it; None where none keeps enough, so that there is nothing to compare."""
        return None if self.found.selected is None else self.found.circuits[self.found.selected]

    def of_size(self, n_requested: int) -> Circuit | None:
        """Its circuit of a requested size; None where it has none."""
        return next((each for each in self.found.circuits if each.n_requested == n_requested), None)

    def ceiling(self, n_requested: int, level: Level, seed: int) -> float:
        """Jaccard of circuits from halves of its discovery prompts; NaN for fewer than four, or four clusters."""
        clusters = None if self.clusters is None else self.clusters[self.found.is_discovery.numpy()]
        stored = stored_scores(self.found, n_requested, self.search, clusters)
        return split_half_ceiling(stored, seed=seed, level=level).jaccard


def overlap_rows(own: Searched, other: Searched, seed: int) -> list[Row]:
    """What two circuits share, as edges and as nodes: each of its own size, then both of the larger that was asked for.

    No row where one of the two searches found no circuit that keeps enough: those are reported, not compared.
    control: the mean Jaccard of random circuits of the two sizes, since pruned circuits share more than sets that are
    drawn edge by edge. Source: METHODS 6e
    """
    a, b = own.circuit, other.circuit
    if a is None or b is None:
        return []
    larger = max(a.n_requested, b.n_requested)
    pairs = {"faithful": (a, b), "matched": (own.of_size(larger), other.of_size(larger))}
    cosine = score_cosine(own.found.matrix, other.found.matrix)
    rows: list[Row] = []
    for selection, (first, second) in pairs.items():
        if first is None or second is None:
            continue
        for level in LEVELS:
            found = overlap(first, second, level=level)
            named = {name: getattr(found, name) for name in found.__dataclass_fields__}
            about = {"selection": selection, "level": level, "score_cosine": cosine}
            ceiling = own.ceiling(first.n_requested, level, seed)
            control = random_jaccard(own.found.graph, first.n_edges, second.n_edges, level, seed)
            rows.append({**about, **named, "ceiling": ceiling, "control": control})
    return rows


def crossed_rows(
    lm: LanguageModel, prompts: Promptset, own: Searched, others: Sequence[Searched], ablation: EdgeAblation, seed: int
) -> list[Row]:
    """What the circuits of other behaviors do for this one, on its evaluation prompts: a row for each of them.

    cross_faithfulness: the share of this behavior that the other's circuit keeps. dissociation: what is kept without
    the other's circuit less what is kept without the own one; above 0, the own circuit matters more. Intervals over
    prompts, two-level where they have clusters. All NaN for a search without a circuit.
    Source: METHODS 6e; Hanna et al. 2025
    """
    nothing: Row = {**dict.fromkeys((*_CROSSED, "own_faithfulness"), _NAN), "n_items": None}
    present = [place for place, each in enumerate(others) if each.circuit is not None]
    if own.circuit is None or not present:
        return [nothing for _ in others]
    theirs = [each for each in (others[place].circuit for place in present) if each is not None]
    circuits = [own.circuit, complement(own.circuit), *theirs, *map(complement, theirs)]
    first = own.found.is_discovery
    halves = Halves(lm, first, *(prompts.select(each.nonzero()[:, 0]) for each in (first, ~first)))
    run = halves.run(circuits, ablation).cpu()
    clusters = None if own.clusters is None else own.clusters[~first.numpy()]
    kept, without = run[:, 4 : 4 + len(theirs)], run[:, 4 + len(theirs) :]
    cross = shares_of(run, kept - run[:, 1:2], clusters, seed)
    apart = shares_of(run, without - run[:, 3:4], clusters, seed)
    rows = [nothing for _ in others]
    for index, place in enumerate(present):
        numbers = (*(each[index] for each in (cross.estimate, cross.low, cross.high)),)
        numbers += (*(each[index] for each in (apart.estimate, apart.low, apart.high)),)
        own_f = float(share_kept(run[:, 2], run))
        crossed = dict(zip(_CROSSED, map(float, numbers), strict=True))
        rows[place] = {**crossed, "own_faithfulness": own_f, "n_items": len(run)}
    return rows


def random_jaccard(graph: EdgeGraph, n_a: int, n_b: int, level: Level, seed: int) -> float:
    """Mean Jaccard of random circuits of two sizes, drawn apart."""
    first, second = _drawn(graph, n_a, seed), _drawn(graph, n_b, seed + 1)
    pairs = zip(first, second, strict=True)
    found = [set_overlap(*(members(graph, each, level) for each in pair)).jaccard for pair in pairs]
    return float(np.mean(found))


@cache
def _drawn(graph: EdgeGraph, n_edges: int, seed: int) -> tuple[Tensor, ...]:
    """Edges [source slot] of random circuits, which every comparison of one model shares."""
    return tuple(each.edges for each in random_circuits(graph, n_edges, N_DRAWS, seed))
