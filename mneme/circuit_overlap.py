"""What two circuits share, and how likely random sets of their sizes were to share as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from mneme.arguments import number_between, one_of
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput

Level = Literal["edge", "node"]
FAITHFUL = 0.85  # of the model's behavior: what a circuit keeps to be compared (METHODS 6e)


@dataclass(frozen=True)
class Overlap:
    """Two sets of one universe: their sizes, what they share, and what that is worth.

    jaccard: shared by united. coefficient: shared by the smaller set. recall_a: the share of a that is in b, recall_b
    the share of b that is in a. All in 0 .. 1, NaN where the set divided by is empty. p_value: the probability that
    two random sets of these sizes share at least as much, in (0, 1].
    """

    n_a: int
    n_b: int
    n_shared: int
    n_universe: int
    jaccard: float
    coefficient: float
    recall_a: float
    recall_b: float
    p_value: float


def overlap(a: Circuit, b: Circuit, *, level: Level = "edge") -> Overlap:
    """What two circuits of one graph share: edges, or nodes, which are the heads and MLPs that an edge leaves.

    Input and logits are nodes of every circuit, so they count neither in the sets nor in the universe. The p-value
    takes all sets of a size for equally likely. Pruned circuits are not: edges of early layers lie on more paths, so
    compare with the overlap of random circuits too. Jaccard depends on the sizes: compare circuits of like size.
    Source: METHODS 5c, 6e; Merullo et al. 2023; Hanna et al. 2025. Departs from the authors' code: the p-value is the
    right tail P(X >= shared), where theirs is P(X > shared), and their universe of nodes holds input and logits.
    Raises: BadInput for circuits of different graphs, grouped and ungrouped ones included, or an unknown level.
    """
    one_of("level", level, get_args(Level))
    if a.graph != b.graph:
        raise BadInput(
            "the two circuits are of different graphs, so that nothing tells which edges are the same: "
            "find both on models of one shape, and with the same convention for shared keys and values"
        )
    return set_overlap(*(members(each.graph, each.edges.cpu(), level) for each in (a, b)))


def set_overlap(a: Tensor, b: Tensor) -> Overlap:
    """What two sets share, each given as which members of one universe it holds: bool, of the same shape.

    A p-value too small for a float is the smallest normal one. Source: METHODS 5c, 6e.
    Raises: BadInput for masks that are not bool or differ in shape.
    """
    if a.dtype != torch.bool or b.dtype != torch.bool or a.shape != b.shape:
        raise BadInput(
            f"sets to compare must be bool masks of one universe, not {a.dtype} {list(a.shape)} "
            f"and {b.dtype} {list(b.shape)}"
        )
    n_a, n_b, n_shared = (int(each.sum()) for each in (a, b, a & b))
    tail = float(hypergeom.sf(n_shared - 1, a.numel(), n_a, n_b))
    return Overlap(
        n_a=n_a,
        n_b=n_b,
        n_shared=n_shared,
        n_universe=a.numel(),
        jaccard=_share(n_shared, n_a + n_b - n_shared),
        coefficient=_share(n_shared, min(n_a, n_b)),
        recall_a=_share(n_shared, n_a),
        recall_b=_share(n_shared, n_b),
        p_value=min(max(tail, float(np.finfo(np.float64).tiny)), 1.0),
    )


def members(graph: EdgeGraph, edges: Tensor, level: Level) -> Tensor:
    """Which edges of a graph, or which of its heads and MLPs, are in circuits [... source slot]: [... member] bool."""
    return edges[..., graph.legal] if level == "edge" else edges.any(dim=-1)[..., 1:]


def score_cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the edge scores of two tasks on one graph, [source slot] each, over all its edges; in -1 .. 1.

    NaN where all scores of a task are 0. Source: METHODS 6e.
    Raises: BadInput for scores of different graphs, NaN at different edges.
    """
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        raise BadInput(
            "the two score matrices are of different graphs: take scores of one model, found with the same convention"
        )
    u, v = (each[~each.isnan()].double() for each in (a, b))
    return float(u @ v / (u.norm() * v.norm()))


def smallest_faithful(f: Tensor, n_edges: Tensor, *, least: float = FAITHFUL) -> int | None:
    """Which circuit [circuit] has the fewest edges among those of faithfulness f >= `least`; None where there is none.

    Circuits that never reach it are reported, not compared. Of equal sizes the first. Source: METHODS 6e.
    Raises: BadInput for a `least` outside 0 .. 1, or f and n_edges of different length.
    """
    number_between("least", least, 0.0, 1.0)
    if f.ndim != 1 or f.shape != n_edges.shape:
        raise BadInput(f"f and n_edges must name the same circuits, not {list(f.shape)} and {list(n_edges.shape)}")
    reached = (f >= least).nonzero()[:, 0].tolist()
    return min(reached, key=lambda circuit: int(n_edges[circuit]), default=None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
