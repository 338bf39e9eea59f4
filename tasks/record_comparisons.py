"""MLflow on what a study compares: curves and behaviors as pictures, phase changes and claims as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from storage.home import Home
from storage.identity import digest
from storage.rows import rows
from tasks.record_circuits import study_circuits, study_figures
from tasks.stage import Value, stage

Row = dict[str, Any]
_BEHAVIORS = """
    select * from mart.behavior_table
    where list_contains(?, trial_id)
    order by promptset, promptset_seed, model, model_seed
"""


def record_comparisons(
    home: Home, study: str, deliveries: Mapping[str, str], phase_changes: Sequence[Row], claims: Sequence[Row]
) -> None:
    """Record the comparisons of a study, unless they already are; nothing where it compares nothing."""
    from storage.mlflow_log import has_store

    behaviors = _compared_behaviors(home, sorted(deliveries))
    circuits = study_circuits(home, study, sorted(deliveries))
    if not phase_changes and not claims and not behaviors and not any(circuits.values()):
        return
    ids = sorted(str(each["comparison_id"]) for each in (*phase_changes, *claims))
    about: dict[str, Any] = {"study": study, "comparisons": ids, "deliveries": dict(deliveries)}
    compared = [row["comparison_id"] for kind in ("overlaps", "checkpoints") for row in circuits[kind]]
    about |= {"overlaps": compared} if compared else {}
    key = digest(about | ({"behaviors": behaviors} if behaviors else {}))
    inputs = {"study": study, "run_key": key, "trial_ids": sorted(deliveries)}
    tables = {
        "phase_changes": list(phase_changes),
        "claims": list(claims),
        "behaviors": behaviors,
        "circuits": circuits,
    }
    record.run(home, f"record-{key}", f"{study} / comparisons", {**inputs, **tables}, refresh=not has_store(home))


def _compared_behaviors(home: Home, trial_ids: list[str]) -> list[Row]:
    """The study's rows of the table of behaviors, if any of them stands beside a baseline."""
    found = rows(home, _BEHAVIORS, [trial_ids])
    return found if any(row["best_baseline"] is not None for row in found) else []


@stage("record")
def record(  # noqa: PLR0913  what one run records
    home: Home,
    study: str,
    run_key: str,
    trial_ids: list[str],
    phase_changes: list[Row],
    claims: list[Row],
    behaviors: list[Row],
    circuits: dict[str, list[Row]],
) -> Value:
    """Log one run of a study's comparisons: pictures of curves and behaviors, numbers as metrics, rows as JSON."""
    from storage.mlflow_log import Recording, record_run

    recording = Recording(
        key=run_key,
        study=study,
        name=f"{study} / comparisons",
        recorded_at_ms=int(datetime.now(UTC).timestamp() * 1000),
        tags={"mneme.study": study},
        metrics=_metrics(phase_changes, claims, behaviors),
        figures=_figures(home, study, trial_ids, behaviors) | study_figures(study, circuits),
        documents={"phase_changes.json": phase_changes, "claims.json": claims}
        | ({"behavior_table.json": behaviors} if behaviors else {})
        | ({"circuit_overlap.json": compared} if (compared := circuits["overlaps"] + circuits["checkpoints"]) else {}),
    )
    return {"mlflow_run_id": record_run(home, recording)}


def _metrics(phase_changes: list[Row], claims: list[Row], behaviors: list[Row]) -> dict[str, float]:
    """The numbers that exist: a curve without a phase change has no t50, a claim that was not tested no difference."""
    found = {}
    for each in phase_changes:
        names = ("measure", "variant", "model", "model_seed", "promptset", "promptset_seed")
        found["t50/" + "/".join(str(each[name]) for name in names if each[name] is not None)] = each["t50"]
    for each in claims:
        found[f"claims/{each['claim']}"] = each.get("difference")
    for each in behaviors:
        about = ("promptset", "promptset_seed", "model", "model_seed")
        found["accuracy/" + "/".join(str(each[name]) for name in about if each[name] is not None)] = each["accuracy"]
    return {name: float(value) for name, value in found.items() if value is not None}


def _figures(home: Home, study: str, trial_ids: list[str], behaviors: list[Row]) -> dict[str, bytes]:
    from storage.report.behavior_figures import behaviors_png
    from storage.report.behaviors import grid
    from storage.report.curve_figures import curves_png
    from storage.report.curves import read_panels

    figures = {}
    titles = {"curves": "over training", "training": "what the training measured"}
    for name, panels in read_panels(home, study, trial_ids).items():
        if panels:
            figures[f"pictures/{name}.png"] = curves_png(panels, f"{study}: {titles[name]}")
    if behaviors:
        figures["pictures/behaviors.png"] = behaviors_png(grid(behaviors), f"{study}: learnt behaviors")
    return figures
