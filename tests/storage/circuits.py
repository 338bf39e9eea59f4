"""Rows of circuits made up by hand: two searches on one model, and what their circuits share."""

from __future__ import annotations

from typing import Any

import polars as pl

from storage.lake import Lake

FACTS = {"level": "circuit", "unit": "share of the behavior", "low": None, "high": None, "probe": "edge_circuits"}
SIZES = ((10, 0, 0.0, 0.0), (40, 36, 0.7, 0.1), (80, 78, 0.9, 0.2), (200, 200, 1.0, None))
EDGES = (("input", "a0.h1<v>", -0.2, None), ("a0.h1", "m1", -1.25, -1.5), ("m1", "logits", 0.5, 0.375))


def circuit_rows(ablation: str = "corrupt") -> list[dict[str, Any]]:
    """A circuit of each size, the third selected; controls under `corrupt` alone."""
    about = {"method": "eap", "rule": "midpoint", "search": "top-n", "ablation": ablation, "level": "edge"}
    found: list[dict[str, Any]] = []
    for n_requested, n_edges, f, random in SIZES:
        sizes = {"n_edges_requested": n_requested, "n_edges": n_edges, "n_nodes": n_edges // 6, "n_graph_edges": 200}
        is_tested = ablation == "corrupt" and n_edges == 78
        share = {"faithfulness": f, "ci_low": f - 0.05, "ci_high": f + 0.05, "is_selected": n_edges == 78}
        left = 0.1 if ablation == "corrupt" else None
        rest = {"completeness": left, "completeness_low": left, "completeness_high": left}
        tests = {"incompleteness": 0.04 if is_tested else None, "minimality": 0.85 if is_tested else None}
        drawn = ablation == "corrupt" and n_edges not in (0, 200)
        null = random if drawn else None
        control = {"control_mean": null, "control_low": null, "control_high": null}
        control |= {"control_n_edges": float(n_edges) if drawn else None, "n_draws": 20 if drawn else None}
        known = {"p_value": 1 / 21 if drawn else None, "n_items": 30, "n_clusters": None}
        found.append(about | sizes | share | rest | tests | control | known)
    return found


def deliver_circuits(lake: Lake, delivery_id: str) -> None:
    """Circuits, edges and measures of one delivery."""
    edges = [
        {
            "source": source,
            "destination": destination,
            "score": score,
            "exact_effect": effect,
            "least_requested": 40,
            "is_selected": True,
            "n_items": 30,
        }
        for source, destination, score, effect in EDGES
    ]
    ends = {"ci_low": 0.7, "ci_high": 0.9, "n_items": 30}
    measures = [
        {"measure": "cpr", "ablation": "corrupt", "level": None, "value": 0.8, "unit": "area"} | ends,
        {"measure": "split_half_jaccard", "ablation": None, "level": "edge", "value": 0.75, "unit": "Jaccard index"}
        | ends,
    ]
    tables = {
        "circuits": [*circuit_rows(), *circuit_rows("mean")],
        "circuit_edges": edges,
        "circuit_measures": measures,
    }
    for table, rows in tables.items():
        frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.lit(delivery_id).alias("delivery_id"))
        lake.deliver(table, delivery_id, frame)


def overlap_row(model: str, promptset: str, other: str, **changes: Any) -> dict[str, Any]:
    """What the circuit of one promptset shares with that of another, whose trials are t-<model>-<promptset>-..."""
    row = {
        "comparison_id": f"o-{model}-{promptset}-{other}",
        "study": "example",
        "model": model,
        "model_seed": 0,
        "probe": "edge_circuits",
        "variant": "primary",
        "trial_id": f"t-{model}-{promptset}-edge_circuits",
        "other_trial_id": f"t-{model}-{other}-edge_circuits",
        "step": None,
        "promptset": promptset,
        "promptset_seed": 0,
        "other_step": None,
        "other_promptset": other,
        "other_promptset_seed": 0,
        "selection": "faithful",
        "level": "edge",
        "n_a": 78,
        "n_b": 78,
        "n_shared": 52,
        "n_universe": 200,
        "jaccard": 0.5,
        "coefficient": 2 / 3,
        "recall_a": 2 / 3,
        "recall_b": 2 / 3,
        "p_value": 1e-9,
        "ceiling": 0.75,
        "control": 0.3,
        "score_cosine": 0.6,
        "own_faithfulness": 0.9,
        "cross_faithfulness": 0.4,
        "cross_low": 0.3,
        "cross_high": 0.5,
        "dissociation": 0.2,
        "dissociation_low": 0.1,
        "dissociation_high": 0.3,
        "n_items": 30,
    }
    assert changes.keys() <= row.keys()
    return row | changes


def deliver_overlaps(lake: Lake, study: str, model: str, promptsets: tuple[str, str]) -> None:
    """Both ways between two promptsets of one model."""
    rows = [
        overlap_row(model, a, b, study=study, selection=each, comparison_id=f"o-{model}-{a}-{b}-{each}")
        for a, b in (promptsets, promptsets[::-1])
        for each in ("faithful", "matched")
    ]
    lake.deliver("circuit_overlap", study, pl.DataFrame(rows, infer_schema_length=None))
