"""Numbers of one search for circuits: areas under its curve, how good its scores are, how stable its circuit is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mneme.circuit_curves import circuit_curve
from mneme.circuit_findings import CircuitFindings, share_kept
from mneme.circuit_overlap import Level
from mneme.circuit_shares import has_gap, shares_of
from mneme.circuit_stability import StoredScores, circuit_stability, split_half_ceiling
from mneme.edge_checks import EdgeCheck

Array = NDArray[np.float64]
Clusters = tuple[Array | None, Array | None]
Row = dict[str, Any]
_NAN = float("nan")


def measure_rows(found: CircuitFindings, known: Mapping[str, Any], clusters: Clusters, seed: int) -> list[Row]:
    """Rows of `circuit_measures`: one per measure, and ablation or level where it depends on one.

    known: the probe's parameters; clusters: of the discovery and of the evaluation prompts. The areas are taken over
    the requested fractions, since pruned sizes may repeat; that of |1 - f| has no interval. No model runs here.
    Source: METHODS 4 (reliability), 6a (controls), 6d (CPR, CMD), 6e (ceiling)
    """
    ranked, tested = clusters
    rows = [row for ablation in known["ablations"] for row in _areas(found, str(ablation), tested, seed)]
    rows += _checks(found)
    return rows + _stabilities(found, known, ranked, seed)


def _row(measure: str, value: float, unit: str, **more: Any) -> Row:
    empty = {"ablation": None, "level": None, "ci_low": _NAN, "ci_high": _NAN}
    return {"measure": measure, "value": value, "unit": unit, **empty, **more}


def _areas(found: CircuitFindings, ablation: str, clusters: Array | None, seed: int) -> list[Row]:
    """CPR with its interval, and CMD; NaN where the ablation changes nothing that can be told from 0."""
    run = found.runs[ablation].double()
    sizes = found.n_requested.double() / found.graph.n_edges
    n_items = len(run)
    if len(sizes) < 2 or not has_gap(run, clusters, seed):
        return [_row(each, _NAN, "area", ablation=ablation, n_items=n_items) for each in ("cpr", "cmd")]
    curve = circuit_curve(sizes, share_kept(run[:, 2:], run))
    kept = torch.trapezoid(run[:, 2:] - run[:, 1:2], sizes, dim=1)
    interval = shares_of(run, kept, clusters, seed)
    ends = {"ci_low": float(interval.low), "ci_high": float(interval.high)}
    cpr = _row("cpr", curve.cpr, "area", ablation=ablation, n_items=n_items, **ends)
    return [cpr, _row("cmd", curve.cmd, "area", ablation=ablation, n_items=n_items)]


def _checks(found: CircuitFindings) -> list[Row]:
    """How far the scores can be trusted: completeness over all edges, and exact effects of some."""
    n_items = len(found.item_scores)
    change = float((found.ends[:, 1] - found.ends[:, 0]).double().mean())
    missed = abs(float(found.matrix[0].double().nansum()) - change) / abs(change) if change else _NAN
    rows = [_row("score_completeness_error", missed, "share of the change", n_items=n_items)]
    if len(found.checked_edges):
        places = found.checked_edges[:, 0], found.checked_edges[:, 1]
        check = EdgeCheck(found.checked_edges, found.is_top, found.matrix[places].double(), found.checked_items)
        rows += [
            _row("exact_spearman", check.spearman, "rank correlation", n_items=n_items),
            _row("exact_spearman_random", check.spearman_random, "rank correlation", n_items=n_items),
            _row("exact_sign_agreement", check.sign_agreement, "fraction", n_items=n_items),
            _row("exact_recall", check.recall, "fraction", n_items=n_items),
        ]
    return rows


def _stabilities(found: CircuitFindings, known: Mapping[str, Any], clusters: Array | None, seed: int) -> list[Row]:
    """Would other prompts give the same circuit, edges and nodes each; of the circuit that stands for the search."""
    n_requested = standing(found)
    if n_requested is None:
        return []
    stored = stored_scores(found, n_requested, str(known["search"]), clusters)
    levels: tuple[Level, ...] = ("edge", "node")
    rows = []
    for level in levels:
        about = {"level": level, "n_items": len(found.item_scores)}
        stable = circuit_stability(stored, seed=seed, level=level)
        ends = {"ci_low": stable.low, "ci_high": stable.high}
        rows.append(_row("bootstrap_jaccard", stable.jaccard, "Jaccard index", **ends, **about))
        half = split_half_ceiling(stored, seed=seed, level=level)
        ends = {"ci_low": half.low, "ci_high": half.high}
        rows.append(_row("split_half_jaccard", half.jaccard, "Jaccard index", **ends, **about))
    return rows


def standing(found: CircuitFindings) -> int | None:
    """How many edges were asked for in the circuit that stands for a search: the selected one, else the largest tried.

    None where every circuit is empty or the whole model. Source: METHODS 6e
    """
    if found.selected is not None:
        return int(found.n_requested[found.selected])
    is_part = (found.n_edges > 0) & (found.n_edges < found.graph.n_edges)
    return int(found.n_requested[is_part].max()) if bool(is_part.any()) else None


def stored_scores(found: CircuitFindings, n_requested: int, search: str, clusters: Array | None) -> StoredScores:
    """The scores by prompt of a search, with the size and the way in which a circuit is found from them."""
    graph = found.graph
    items = torch.full((len(found.item_scores), *graph.legal.shape), torch.nan, dtype=found.item_scores.dtype)
    items[:, graph.legal] = found.item_scores
    return StoredScores(graph, items, n_requested, search, clusters=clusters)  # type: ignore[arg-type]
