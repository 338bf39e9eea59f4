"""ACDC at many thresholds, and whether the edges that stay are those of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput


@dataclass(frozen=True)
class Recovery:
    """How much of a reference circuits find: true, false_alarms [circuit], shares of its edges and of all others.

    area: under the curve of the one over the other, from no edge to all, by trapezoids: 1 where every edge of the
    reference comes before any other, 0.5 by chance.
    """

    true: Tensor
    false_alarms: Tensor
    area: float


def thresholds(n_taus: int, least: float, most: float) -> Tensor:
    """Values of tau from least to most at equal ratios: [tau] float64. METHODS 7 asks for 20 from 1e-5 to 1.

    Raises: BadInput for fewer than two values, or ends that do not grow from above 0.
    """
    whole_number("n_taus", n_taus, 2)
    if not 0 < least < most:
        raise BadInput(f"thresholds go from {least!r} to {most!r}: let them grow from above 0")
    ends = torch.tensor([least, most], dtype=torch.float64).log10()
    return torch.logspace(float(ends[0]), float(ends[1]), n_taus, dtype=torch.float64)


def recovery(circuits: Sequence[Circuit], reference: Circuit) -> Recovery:
    """What circuits of one graph find of a reference on it. Source: METHODS 7; Conmy et al. 2023.

    Raises: BadInput for a reference without edges or with all of them, or a circuit of another graph.
    """
    graph, wanted = reference.graph, _among(reference.graph, reference.edges)
    if not wanted.any() or wanted.all():
        raise BadInput(f"the reference holds {reference.n_edges} of {graph.n_edges} edges, so that none can be missed")
    if any(each.graph != graph for each in circuits):
        raise BadInput("a circuit is of another graph than the reference: find both on one model")
    kept = torch.stack([_among(graph, each.edges) for each in circuits]).double()
    true, false_alarms = kept[:, wanted].mean(dim=1), kept[:, ~wanted].mean(dim=1)
    points = sorted([(0.0, 0.0), *zip(false_alarms.tolist(), true.tolist(), strict=True), (1.0, 1.0)])
    across, up = torch.tensor(points, dtype=torch.float64).T
    return Recovery(true, false_alarms, float(torch.trapezoid(up, across)))


def ranked_area(graph: EdgeGraph, worth: Tensor, reference: Circuit) -> float:
    """The same area of a ranking of all edges by worth [source slot], ties counting half: 0 .. 1.

    The chance that an edge of the reference is worth more than one outside.
    """
    wanted, values = _among(graph, reference.edges), _among(graph, worth).double()
    inside, outside = values[wanted, None], values[None, ~wanted]
    return float(((inside > outside).double() + 0.5 * (inside == outside).double()).mean())


def _among(graph: EdgeGraph, values: Tensor) -> Tensor:
    """Values [source slot] at the edges of a graph: [edge]."""
    return values.cpu()[graph.legal]
