"""Items to the rows that a trial delivers: means with intervals, reliability, and effects beside their controls.

Rows are those of the raw tables in ARCHITECTURE.md without delivery_id; NaN means missing and stays NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mneme.curve_rows import curve_tables, curves_by_condition, item_conditions
from mneme.intervals import mean_within, n_clusters_of, numbers_of, readouts_of
from mneme.probe import Probe
from mneme.promptset import Promptset
from mneme.reliability import split_half
from mneme.stats import bootstrap_mean, bootstrap_ratio, permutation_p

Array = NDArray[np.float64]
Rows = dict[str, Any] | list[dict[str, Any]]
NULL_RANGE = (0.025, 0.975)
GAP = "logit_difference_clean_minus_corrupt"  # mean effect of a patch over the mean of this is its share of the whole


def summarise(
    probe: Probe, items: Mapping[str, Tensor], prompts: Promptset, parameters: Mapping[str, Any], probe_seed: int
) -> dict[str, Rows]:
    """Rows by raw table: columns (name -> array) for the large tables, lists of rows for the small ones.

    items: what `measuring.measure` returned for this probe and these prompts. Intervals are 95 % bootstrap intervals
    over prompts (two-level where they have clusters), Wilson's for shares of right or wrong answers.
    Source: METHODS 4
    """
    if probe.reads == "weights":
        return {"head_scores": _weight_rows(_array(items["scores"]))}
    tables = _level_tables(probe, items, prompts, parameters, probe_seed)
    return tables | ({"item_conditions": item_conditions(prompts)} if prompts.conditions else {})


def _level_tables(
    probe: Probe, items: Mapping[str, Tensor], prompts: Promptset, parameters: Mapping[str, Any], probe_seed: int
) -> dict[str, Rows]:
    clusters = None if prompts.clusters is None else prompts.clusters.numpy()
    if probe.level == "head":
        return _head_tables(_array(items["scores"]), clusters, probe_seed)
    if probe.level == "behavior":
        return _behavior_tables(probe, _array(items["values"]), prompts, clusters, probe_seed)
    if probe.level == "curve":
        return {**curve_tables(probe, items, clusters, probe_seed)}
    tables = _effect_tables(items, clusters, _done(probe, parameters), probe_seed)
    if "set_effects" in items:
        tables["controls"] = _control_rows(items, clusters, probe_seed)
    if "gap" in items:
        tables["behavior"] = [_gap_row(_array(items["gap"]), clusters, probe_seed)]
    return tables


def _array(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def _head_tables(scores: Array, clusters: Array | None, seed: int) -> dict[str, Rows]:
    interval = mean_within(scores, clusters, seed)
    layer, head = _indices(scores.shape[1:])
    rows = {
        "layer": layer,
        "head": head,
        "score": interval.estimate.reshape(-1),
        "ci_low": interval.low.reshape(-1),
        "ci_high": interval.high.reshape(-1),
        "n_items": interval.n_items.reshape(-1),
        "n_clusters": n_clusters_of(interval, clusters).reshape(-1),
    }
    return {"head_scores": rows, "item_scores": _item_rows(scores), "reliability": _reliability(scores, clusters, seed)}


def _weight_rows(scores: Array) -> Rows:
    """One number per head that no prompt entered: without interval, without n."""
    layer, head = _indices(scores.shape)
    missing = np.full(scores.size, np.nan)
    absent = dict.fromkeys(("ci_low", "ci_high", "n_items", "n_clusters"), missing)
    return {"layer": layer, "head": head, "score": scores.reshape(-1), **absent}


def _behavior_tables(
    probe: Probe, values: Array, prompts: Promptset, clusters: Array | None, seed: int
) -> dict[str, Rows]:
    chance = float(prompts.facts.get("chance", {}).get(probe.name, np.nan))
    rows = [
        {"readout": readout, "is_accuracy": probe.is_accuracy, "chance": chance, **numbers_of(interval, clusters)}
        for readout, interval in readouts_of(probe, values, clusters, seed).items()
    ]
    tables: dict[str, Rows] = {"behavior": rows, "item_scores": _item_rows(values)}
    by_condition = curves_by_condition(probe, values, prompts, clusters, seed)
    return tables | ({"curves": by_condition} if by_condition else {})


def _gap_row(gap: Array, clusters: Array | None, seed: int) -> dict[str, Any]:
    interval = mean_within(gap, clusters, seed)
    return {"readout": GAP, "is_accuracy": False, "chance": float("nan"), **numbers_of(interval, clusters)}


def _done(probe: Probe, parameters: Mapping[str, Any]) -> tuple[str, str | None]:
    """What an intervention did to a head, and the label of the position at which it did (None = all positions)."""
    known = {**(getattr(probe.measure, "__kwdefaults__", None) or {}), **parameters}
    return (probe.effect_name or probe.name).format(**known), known.get("position")


def _effect_tables(
    items: Mapping[str, Tensor], clusters: Array | None, done: tuple[str, str | None], seed: int
) -> dict[str, Rows]:
    effects = _array(items["effects"])
    normalised = _normalised(effects, _whole(items, effects.shape), clusters, seed)
    interval = mean_within(effects, clusters, seed)
    layer, head = _indices(effects.shape[1:])
    rows = {
        "intervention": [done[0]] * len(layer),
        "layer": layer,
        "head": head,
        "position_label": [done[1]] * len(layer),
        "effect": interval.estimate.reshape(-1),
        "ci_low": interval.low.reshape(-1),
        "ci_high": interval.high.reshape(-1),
        **{name: column.reshape(-1) for name, column in normalised.items()},
        "n_items": interval.n_items.reshape(-1),
        "n_clusters": n_clusters_of(interval, clusters).reshape(-1),
    }
    return {
        "head_effects": rows,
        "item_scores": _item_rows(effects),
        "reliability": _reliability(effects, clusters, seed),
    }


def _whole(items: Mapping[str, Tensor], shape: tuple[int, ...]) -> Array | None:
    """What an effect is a share of, by item and head: one gap for all heads, or a whole of each; else None."""
    if "whole" in items:
        return _array(items["whole"])
    return np.broadcast_to(_array(items["gap"])[:, None, None], shape) if "gap" in items else None


def _normalised(effects: Array, whole: Array | None, clusters: Array | None, seed: int) -> dict[str, Array]:
    """Mean effect over mean whole, prompts resampled in both together (METHODS 3, 4); NaN where its sign is unknown.

    The whole's own interval must not hold 0. The interval is also NaN where one resample of the whole reaches 0.
    """
    names = ("normalised_effect", "normalised_low", "normalised_high")
    if whole is None:
        return dict.fromkeys(names, np.full(effects.shape[1:], np.nan))
    alone = bootstrap_mean(whole, seed=seed, clusters=clusters)
    share = bootstrap_ratio(effects, whole, seed=seed, clusters=clusters)
    is_known = (alone.low > 0) | (alone.high < 0)
    columns = (share.estimate, share.low, share.high)
    return {name: np.where(is_known, column, np.nan) for name, column in zip(names, columns, strict=True)}


def _control_rows(items: Mapping[str, Tensor], clusters: Array | None, seed: int) -> list[dict[str, Any]]:
    """One row per k: the tested set's effect on the prompts that did not rank it, beside those of its controls."""
    sets = _array(items["set_effects"])
    interval = mean_within(sets, clusters, seed)
    n_clusters = n_clusters_of(interval, clusters)
    rows = []
    for index, k in enumerate(items["k"].tolist()):
        drawn = int(items["n_draws"][index])
        controls = _array(items["control_effects"][:, index, :drawn])
        null = controls[~np.isnan(sets[:, index])].mean(axis=0) if drawn else np.empty(0)
        low, high = np.quantile(null, NULL_RANGE) if drawn else (np.nan, np.nan)
        rows.append(
            {
                "k": k,
                "value": float(interval.estimate[index]),
                "ci_low": float(interval.low[index]),
                "ci_high": float(interval.high[index]),
                "control_mean": float(null.mean()) if drawn else np.nan,
                "control_low": float(low),
                "control_high": float(high),
                "n_draws": drawn,
                "n_distinct": int(items["n_distinct"][index]),
                "p_value": permutation_p(float(interval.estimate[index]), null),
                "n_items": int(interval.n_items[index]),
                "n_clusters": float(n_clusters[index]),
            }
        )
    return rows


def _reliability(scores: Array, clusters: Array | None, seed: int) -> list[dict[str, Any]]:
    found = split_half(scores, seed=seed, clusters=clusters)
    row = {
        "split_half": found.split_half,
        "spearman_brown": found.spearman_brown,
        "top_k": found.top_k,
        "top_k_jaccard": found.top_k_jaccard,
        "n_items": found.n_items,
    }
    return [row]


def _indices(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    layer, head = (each.reshape(-1) for each in np.indices(shape))
    return layer, head


def _item_rows(values: Array) -> dict[str, Any]:
    """[item] or [item layer head] as columns; layer and head are None where the whole model is measured."""
    if values.ndim == 1:
        missing = [None] * len(values)
        return {"layer": missing, "head": missing, "item": np.arange(len(values)), "value": values}
    item, layer, head = (each.reshape(-1) for each in np.indices(values.shape))
    return {"layer": layer, "head": head, "item": item, "value": values.reshape(-1)}
