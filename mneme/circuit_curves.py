"""How faithfulness grows with the size of a circuit, as one number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.errors import BadInput

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges: the sizes of MIB


@dataclass(frozen=True)
class CircuitCurve:
    """cpr: area under f over the fraction of edges, higher is better. cmd: area under |1 - f|, lower is better.

    Both start at the smallest fraction and end at the largest, so that f = 1 everywhere from 0.001 to 1 has cpr 0.999.
    """

    cpr: float
    cmd: float


def circuit_curve(fractions: Tensor, f: Tensor) -> CircuitCurve:
    """CPR and CMD of faithfulness f [circuit] at fractions of the graph's edges [circuit], by trapezoids.

    The axis is linear. Give the fractions of the delivered edges where they differ from the requested ones: pruning
    makes circuits smaller. Range: unbounded for CPR, at least 0 for CMD. Source: METHODS 6d; Mueller et al. 2025 (MIB).
    Raises: BadInput for fewer than two circuits, fractions that do not grow or leave 0 .. 1, or values not finite.
    """
    sizes, values = fractions.double(), f.double()
    if sizes.ndim != 1 or sizes.shape != values.shape or len(sizes) < 2:
        raise BadInput(
            f"a curve needs fractions and f of at least two circuits, not {list(sizes.shape)} and {list(values.shape)}"
        )
    if not bool((sizes.diff() > 0).all()) or float(sizes[0]) < 0 or float(sizes[-1]) > 1:
        raise BadInput("the fractions of a curve must grow from circuit to circuit, within 0 and 1: sort them first")
    if not bool(torch.isfinite(values).all()):
        raise BadInput("the faithfulness of a circuit is NaN or infinite: check the gap between model and ablation")
    areas = [float(torch.trapezoid(each, sizes)) for each in (values, (1 - values).abs())]
    return CircuitCurve(areas[0], areas[1])


def sizes_of(n_edges: int, fractions: tuple[float, ...] = FRACTIONS) -> list[int]:
    """How many edges to ask of `find_circuit` for fractions of a graph of `n_edges`, at least one."""
    return [max(1, int(fraction * n_edges)) for fraction in fractions]
