"""Rows of circuits: how faithful each is beside random ones, what each edge does, and how sure the search can be.

Rows are those of the raw tables in ARCHITECTURE.md without delivery_id; NaN means missing and stays NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mneme.circuit_findings import CircuitFindings, share_kept
from mneme.circuit_measures import measure_rows
from mneme.circuit_shares import has_gap, shares_of
from mneme.intervals import n_clusters_of
from mneme.probe import Probe
from mneme.promptset import Promptset
from mneme.stats import Interval, permutation_p

Array = NDArray[np.float64]
Rows = list[dict[str, Any]]
LEVEL = 0.05  # of the test that an edge matters more than random ones
NULL_RANGE = (0.025, 0.975)
_NAN = float("nan")


def summarise_circuits(
    probe: Probe, arrays: Mapping[str, Tensor], prompts: Promptset, parameters: Mapping[str, Any], probe_seed: int
) -> dict[str, Rows]:
    """`circuits`, `circuit_edges` and `circuit_measures` of one search, from its stored findings.

    arrays: what `measuring.measure` returned for a probe of level `circuit`. Intervals are 95 % bootstrap intervals
    over prompts, two-level where they have clusters; both sides of a share are resampled together. Where the interval
    of m(whole) - m(empty) holds 0, an ablation has no shares. Controls belong to the first ablation alone.
    Source: METHODS 4, 6d
    """
    found = CircuitFindings.of_arrays(arrays)
    known = {**(getattr(probe.measure, "__kwdefaults__", None) or {}), **parameters}
    about = {"method": known["method"], "rule": known["rule"], "search": known["search"], "level": "edge"}
    clusters = None if prompts.clusters is None else prompts.clusters.numpy()
    ranked, tested = (None if clusters is None else clusters[found.is_discovery.numpy() == each] for each in (1, 0))
    rows: Rows = []
    for place, ablation in enumerate(known["ablations"]):
        under = Under(found, found.runs[ablation], tested, probe_seed)
        controls = [under.controls(each) for each in range(len(found.edges))] if place == 0 else None
        for circuit, row in enumerate(under.rows()):
            more = _NO_CONTROLS if controls is None else controls[circuit]
            rows.append({**about, "ablation": ablation, **row, **more})
    measures = measure_rows(found, known, (ranked, tested), probe_seed)
    return {"circuits": rows, "circuit_edges": _edge_rows(found), "circuit_measures": measures}


_NO_CONTROLS: dict[str, Any] = dict.fromkeys(
    (
        "completeness",
        "completeness_low",
        "completeness_high",
        "incompleteness",
        "minimality",
        "control_mean",
        "control_low",
        "control_high",
        "control_n_edges",
        "n_draws",
        "p_value",
    ),
    _NAN,
)


@dataclass(frozen=True)
class Under:
    """Circuits under one ablation: their run [item 2+circuit], and the clusters of its prompts."""

    found: CircuitFindings
    run: Tensor
    clusters: Array | None
    seed: int

    def shares(self, kept: Tensor) -> Interval:
        """Faithfulness of readouts [item ...]; NaN where there is no gap."""
        empty = self.run[:, 1].reshape(-1, *[1] * (kept.ndim - 1))
        return shares_of(self.run, kept - empty, self.clusters, self.seed)

    def rows(self) -> Rows:
        """One row a circuit: its size and how faithful it is."""
        f = self.shares(self.run[:, 2:])
        n_clusters = n_clusters_of(f, self.clusters)
        return [
            {
                "n_edges_requested": circuit.n_requested,
                "n_edges": circuit.n_edges,
                "n_nodes": int(circuit.nodes[1:].sum()),
                "n_graph_edges": circuit.graph.n_edges,
                "is_selected": bool(self.found.is_selected[place]),
                "faithfulness": float(f.estimate[place]),
                "ci_low": float(f.low[place]),
                "ci_high": float(f.high[place]),
                "n_items": int(f.n_items[place]),
                "n_clusters": float(n_clusters[place]),
            }
            for place, circuit in enumerate(self.found.circuits)
        ]

    def controls(self, place: int) -> dict[str, Any]:
        """What one circuit leaves out, what of it is in vain, and what random circuits of its size do."""
        found = self.found
        left = self.shares(found.without[:, place])
        named = {
            "completeness": float(left.estimate),
            "completeness_low": float(left.low),
            "completeness_high": float(left.high),
        }
        if place == found.selected:
            named |= {"incompleteness": _mean(found.knocked_out.numpy()), "minimality": _share_that_matters(found)}
        drawn = found.random_n_edges[place] > 0
        if not has_gap(self.run, self.clusters, self.seed) or not bool(drawn.any()):
            return _NO_CONTROLS | named
        null = share_kept(found.random[:, place, drawn], self.run).numpy()
        low, high = np.quantile(null, NULL_RANGE)
        f = float(share_kept(self.run[:, 2 + place], self.run))
        return (
            _NO_CONTROLS
            | named
            | {
                "control_mean": float(null.mean()),
                "control_low": float(low),
                "control_high": float(high),
                "control_n_edges": float(found.random_n_edges[place, drawn].double().mean()),
                "n_draws": len(null),
                "p_value": permutation_p(f, null),
            }
        )


def _share_that_matters(found: CircuitFindings) -> float:
    """The share of the tested edges whose loss costs more than that of random edges; NaN where none was tested."""
    return _mean((found.minimal_p[~found.minimal_p.isnan()] <= LEVEL).double().numpy())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else _NAN


def _edge_rows(found: CircuitFindings) -> Rows:
    """One row an edge: its score, its exact effect where it was run, and the smallest circuit that holds it."""
    graph = found.graph
    exact = dict(zip(map(tuple, found.checked_edges.tolist()), found.checked_items.mean(dim=0).tolist(), strict=True))
    rows: Rows = []
    for source, slot in graph.legal.nonzero().tolist():
        holding = found.n_requested[found.edges[:, source, slot]]
        rows.append(
            {
                "source": graph.sources[source],
                "destination": graph.slots[slot],
                "score": float(found.matrix[source, slot]),
                "exact_effect": exact.get((source, slot), _NAN),
                "least_requested": float(holding.min()) if len(holding) else _NAN,
                "is_selected": found.selected is not None and bool(found.edges[found.selected, source, slot]),
                "n_items": len(found.item_scores),
            }
        )
    return rows
