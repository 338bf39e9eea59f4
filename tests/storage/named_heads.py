"""Heads named by curves: the circuit of indirect objects, and what two behaviors share. Rows made up by hand."""

from __future__ import annotations

from typing import Any

import polars as pl

from storage.lake import Lake
from tests.storage.rows import curve_row, deliver_answer, deliver_trial

IOI_SPEC = '{"parameters": {"least_effect": 0.05, "least_shift": 0.04, "least_attention": 0.3}}'
REUSE_SPEC = '{"parameters": {"stage": "queries", "rank_on": "ioi_paper"}}'
# role, layer, head, score, least, minimality
MEMBERS = [(1, 3, 1, 0.6, 0.05, 1.5), (4, 2, 0, 0.2, 0.04, 0.7), (5, 1, 2, 0.9, 0.3, 0.1), (6, 1, 2, 0.35, 0.3, 0.1)]
COUNTS = [1, 0, 0, 1, 1, 1, 0]
# layer, head, is_here, is_there, effect_here, effect_there
TOP = [(3, 1, 1, 1, 0.5, 0.9), (0, 2, 1, 0, -0.3, 0.0), (2, 0, 0, 1, 0.0, 0.4)]


def deliver_ioi_heads(lake: Lake, members: list[Any] = MEMBERS, study: str = "example", **about: Any) -> None:
    """A trial of `ioi_circuit` on a model of 16 heads; without members its curves have one point of NULL."""
    rows = [curve_row("whole", "n_heads", 16.0, value=3.5, unit="logits")]
    measures = {"role": "class", "layer": "layer", "head": "head", "score": "fraction", "least": "fraction"}
    for place, member in enumerate(members or [(None,) * 6], start=1):
        for (measure, unit), value in zip((measures | {"minimality": "logits"}).items(), member, strict=True):
            rows.append(curve_row(measure, "rank", float(place), value=value, unit=unit))
    counts = COUNTS if members else [0] * 7
    rows += [
        curve_row("class_size", "class", float(place), value=float(count), unit="heads")
        for place, count in enumerate(counts, start=1)
    ]
    facts = {"probe": "ioi_circuit", "promptset": "ioi_paper", "unit": "logits", "spec": IOI_SPEC}
    _deliver(lake, study, facts | about, rows)


def deliver_reused_heads(lake: Lake, study: str = "example", **about: Any) -> None:
    """A trial of `head_reuse` that names three heads."""
    rows = [curve_row("n_shared", "share_of_heads", 0.1, value=1.0, unit="heads")]
    names = ("layer", "head", "is_here", "is_there", "effect_here", "effect_there")
    for place, head in enumerate(TOP, start=1):
        for measure, value in zip(names, head, strict=True):
            unit = "logits" if measure.startswith("effect") else measure
            rows.append(curve_row(measure, "place", float(place), value=float(value), unit=unit))
    facts = {"probe": "head_reuse", "promptset": "colored_objects", "unit": "heads", "spec": REUSE_SPEC}
    _deliver(lake, study, facts | about, rows)


def _deliver(lake: Lake, study: str, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    name = f"{about['probe']}-{about.get('variant', 'primary')}"
    deliver_trial(lake, f"d-{name}", trial_id=f"t-{name}", level="curve", low=None, high=None, **about)
    deliver_answer(lake, study, f"t-{name}", f"d-{name}")
    delivered = [{"delivery_id": f"d-{name}"} | row for row in rows]
    lake.deliver("curves", f"d-{name}", pl.DataFrame(delivered, infer_schema_length=None))
