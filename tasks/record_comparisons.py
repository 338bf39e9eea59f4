"""MLflow on what a study compares: the curves over training as a picture, phase changes and claims as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from storage.home import Home
from storage.identity import digest
from tasks.stage import Value, stage

Row = dict[str, Any]


def record_comparisons(
    home: Home, study: str, deliveries: Mapping[str, str], phase_changes: Sequence[Row], claims: Sequence[Row]
) -> None:
    """Record the comparisons of a study, unless they already are; nothing where it compares nothing."""
    from storage.mlflow_log import has_store

    if not phase_changes and not claims:
        return
    ids = sorted(str(each["comparison_id"]) for each in (*phase_changes, *claims))
    key = digest({"study": study, "comparisons": ids, "deliveries": dict(deliveries)})
    inputs = {"study": study, "run_key": key, "trial_ids": sorted(deliveries)}
    rows = {"phase_changes": list(phase_changes), "claims": list(claims)}
    record.run(home, f"record-{key}", f"{study} / comparisons", {**inputs, **rows}, refresh=not has_store(home))


@stage("record")
def record(
    home: Home, study: str, run_key: str, trial_ids: list[str], phase_changes: list[Row], claims: list[Row]
) -> Value:
    """Log one run of a study's comparisons: a picture of the curves, t50 and differences as metrics, rows as JSON."""
    from storage.mlflow_log import Recording, record_run

    recording = Recording(
        key=run_key,
        study=study,
        name=f"{study} / comparisons",
        recorded_at_ms=int(datetime.now(UTC).timestamp() * 1000),
        tags={"mneme.study": study},
        metrics=_metrics(phase_changes, claims),
        figures=_figures(home, study, trial_ids),
        documents={"phase_changes.json": phase_changes, "claims.json": claims},
    )
    return {"mlflow_run_id": record_run(home, recording)}


def _metrics(phase_changes: list[Row], claims: list[Row]) -> dict[str, float]:
    """The numbers that exist: a curve without a phase change has no t50, a claim that was not tested no difference."""
    found = {}
    for each in phase_changes:
        names = ("measure", "variant", "model", "model_seed", "promptset", "promptset_seed")
        found["t50/" + "/".join(str(each[name]) for name in names if each[name] is not None)] = each["t50"]
    for each in claims:
        found[f"claims/{each['claim']}"] = each.get("difference")
    return {name: float(value) for name, value in found.items() if value is not None}


def _figures(home: Home, study: str, trial_ids: list[str]) -> dict[str, bytes]:
    from storage.report.curve_figures import curves_png
    from storage.report.curves import read_panels

    panels = read_panels(home, study, trial_ids)
    return {"pictures/curves.png": curves_png(panels, f"{study}: over training")} if panels else {}
