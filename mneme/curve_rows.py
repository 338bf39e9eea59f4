"""Rows of curves: a probe's measures along an axis, and any behavior by the conditions of its prompts.

Rows are those of the raw tables in ARCHITECTURE.md without delivery_id; NaN means missing and stays NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mneme.curve import Curve, CurveFacts, curve_of_arrays
from mneme.intervals import mean_of, n_clusters_of, numbers_of, readouts_of
from mneme.probe import Probe
from mneme.promptset import Promptset

Array = NDArray[np.float64]
Columns = dict[str, Any]
FEWEST_VALUES, MOST_VALUES = 2, 64  # of a condition that becomes an axis: a constant is none, a measurement too many


def curve_tables(probe: Probe, arrays: Mapping[str, Tensor], clusters: Array | None, seed: int) -> dict[str, Columns]:
    """`curves`, one row per measure and point, and `curve_items`, one per measure, point and prompt.

    arrays: what `measuring.measure` returned for a probe of level `curve`. Values that can only be 0 or 1 get Wilson's
    interval, all others that of the bootstrap; a NaN leaves its point and the point's n.
    """
    curves = {measure: (facts, curve_of_arrays(arrays, measure)) for measure, facts in probe.curves.items()}
    points = [_points(measure, *each, clusters, seed) for measure, each in curves.items()]
    items = [_items(measure, *each) for measure, each in curves.items()]
    return {"curves": _joined(points), "curve_items": _joined(items)}


def curves_by_condition(
    probe: Probe, values: Array, prompts: Promptset, clusters: Array | None, seed: int
) -> list[dict[str, Any]]:
    """A behavior probe's items [item] along each condition of their prompts: one row per readout and distinct value.

    Conditions of 2 to 64 distinct values become an axis. Where all prompts of each value lie in one cluster, the
    condition says what the clusters say: at one value prompts then stand for themselves, and are resampled as such.
    """
    rows: list[dict[str, Any]] = []
    for x_name, condition in prompts.conditions.items():
        places = condition.numpy()
        axis = np.unique(places[~np.isnan(places)])
        if not FEWEST_VALUES <= len(axis) <= MOST_VALUES:
            continue
        apart = None if clusters is None or _one_cluster_each(places, axis, clusters) else clusters
        for x in axis:
            here = np.where(places == x, values, np.nan)
            for readout, interval in readouts_of(probe, here, apart, seed).items():
                at = {"measure": readout, "x_name": x_name, "x": float(x), "unit": probe.unit}
                rows.append(at | numbers_of(interval, apart))
    return rows


def item_conditions(prompts: Promptset) -> Columns:
    """Every condition of every prompt, in columns; empty where the promptset has none."""
    n_items = len(prompts)
    names = [name for name in prompts.conditions for _ in range(n_items)]
    values = [condition.numpy() for condition in prompts.conditions.values()]
    item = np.tile(np.arange(n_items), len(prompts.conditions))
    return {"item": item, "condition": names, "value": np.concatenate([*values, np.empty(0)])}


def _one_cluster_each(places: Array, axis: Array, clusters: Array) -> bool:
    return all(len(np.unique(clusters[places == x])) == 1 for x in axis)


def _points(measure: str, facts: CurveFacts, curve: Curve, clusters: Array | None, seed: int) -> Columns:
    values = curve.values.double().numpy()
    interval = mean_of(values, clusters, seed, is_share=(facts.low, facts.high) == (0, 1))
    n_points = len(curve.x)
    return {
        "measure": [measure] * n_points,
        "x_name": [facts.x_name] * n_points,
        "x": curve.x.numpy(),
        "value": interval.estimate,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n_items": interval.n_items,
        "n_clusters": n_clusters_of(interval, clusters),
        "unit": [facts.unit] * n_points,
    }


def _items(measure: str, facts: CurveFacts, curve: Curve) -> Columns:
    item, point = (each.reshape(-1) for each in np.indices(tuple(curve.values.shape)))
    return {
        "measure": [measure] * len(item),
        "x_name": [facts.x_name] * len(item),
        "x": curve.x.numpy()[point],
        "item": item,
        "value": curve.values.double().numpy().reshape(-1),
    }


def _joined(parts: list[Columns]) -> Columns:
    return {name: [each for part in parts for each in part[name]] for name in parts[0]}
