"""A trial's rows, from its stored items, into the lake."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from storage.home import Home
from storage.identity import canonical_json
from storage.lake import Delivered, Lake
from storage.signatures import declared_facts
from storage.specs import TrialSpec
from tasks.narrator import listener
from tasks.prepare import promptset_folder
from tasks.stage import Value, object_of, stage


@stage("deliver")
def deliver(
    home: Home, trial: dict[str, Any], items_key: str, items: Value, promptset: Value, about: dict[str, Any]
) -> Value:
    """Summarise a trial's items and write one Parquet file per raw table; `about` becomes the row of `raw.trials`."""
    from mneme.circuit_rows import summarise_circuits
    from mneme.probe import probes
    from mneme.summaries import summarise
    from storage.arrays import read_arrays
    from storage.content import ContentStore
    from storage.promptset_files import read_promptset

    asked = TrialSpec.model_validate(trial)
    arrays = read_arrays(ContentStore(home.store).file(object_of(items)))
    prompts = read_promptset(promptset_folder(home, promptset))
    probe = probes.get(asked.probe)
    rows_of = summarise_circuits if probe.level == "circuit" else summarise
    tables = rows_of(probe, arrays, prompts, asked.parameters, asked.probe_seed)
    return {"files": write_rows(home, asked, about, tables), "status": "delivered", "items": items_key}


def write_rows(home: Home, trial: TrialSpec, about: dict[str, Any], tables: dict[str, Any]) -> list[dict[str, Any]]:
    """Deliver the trial's own row and its tables; returns what was written, by file."""
    import polars as pl

    lake = Lake(home.lake)
    key = about["delivery_id"]
    written = []
    for table, rows in tables.items():
        frame = pl.DataFrame(rows).with_columns(pl.lit(key).alias("delivery_id"))
        if not frame.is_empty():
            written.append(lake.deliver(table, key, frame))
    written.append(lake.deliver("trials", key, pl.DataFrame([trial_row(trial, about)])))
    return [asdict(each) for each in written]


def trial_row(trial: TrialSpec, about: dict[str, Any]) -> dict[str, Any]:
    """The trial's row in `raw.trials`: what was asked, what answered, and how it went."""
    facts = declared_facts("probe", trial.probe)
    return {
        "trial_id": trial.trial_id,
        "model": trial.model,
        "model_seed": trial.model_seed,
        "step": trial.step,
        "promptset": trial.promptset,
        "promptset_seed": trial.promptset_seed,
        "is_control": trial.promptset_spec.control_of is not None,
        "baseline": trial.model_spec.baseline,
        "probe": trial.probe,
        "variant": trial.variant,
        "probe_seed": trial.probe_seed,
        "level": facts["level"],
        "unit": facts["unit"],
        "low": facts["low"],
        "high": facts["high"],
        "spec": canonical_json(trial.asked()),
        "delivered_at": datetime.now(UTC),
        **about,
    }


def is_delivered(home: Home, value: Value | None) -> bool:
    """Whether every lake file of a delivery is there, unaltered."""
    if value is None or value.get("status") != "delivered":
        return False
    lake = Lake(home.lake)
    return all(lake.intact(Delivered(**each)) for each in value["files"])


def deliver_without_rows(home: Home, trial: TrialSpec, about: dict[str, Any]) -> None:
    """Record a trial that failed or does not apply: one row in `raw.trials`, with its sentence."""
    listener().end(f"trial: {trial.label}", about["status"])
    write_rows(home, trial, about, {})
