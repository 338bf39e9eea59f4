"""MLflow's view of a study: one run per model x promptset, recorded once per content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.home import Home
from storage.identity import digest
from storage.specs import TrialSpec
from storage.study_runs import StudyRun
from tasks.record_circuits import TABLES, circuit_document, circuit_drawing, circuit_metrics
from tasks.stage import Value, stage


def record_pairing(home: Home, study: str, deliveries: list[dict[str, Any]], prompts: str | None, page: str) -> bool:
    """Record the deliveries (`{trial, delivery_id}`) of one model on one promptset, unless they already are.

    The steps of one training are one run, with a curve for each metric. Returns whether the row of `raw.recordings`,
    which names the run, is new to the lake.
    """
    from storage.mlflow_log import has_store

    key = digest({"study": study, "deliveries": [each["delivery_id"] for each in deliveries]})
    first = TrialSpec.model_validate(deliveries[0]["trial"])
    inputs = {"study": study, "run_key": key, "deliveries": deliveries, "prompts": prompts, "page": page}
    refresh = not has_store(home)
    value = record.run(home, f"record-{key}", first.finished_pairing_label, inputs, refresh=refresh)
    return deliver_recording(home, study, first, str(value["mlflow_run_id"]))


def deliver_recording(home: Home, study: str, first: TrialSpec, run_id: str) -> bool:
    """Have the lake name the MLflow run of a pairing, by one of its trials; whether it did not, or not this run."""
    import polars as pl

    from storage.lake import RECORDINGS, Lake

    pairing = {
        "study": study,
        "model": first.model,
        "model_seed": first.model_seed,
        "promptset": first.promptset,
        "promptset_seed": first.promptset_seed,
    }
    lake, key = Lake(home.lake), digest(pairing)
    known = lake.rows(RECORDINGS, key)
    if known is not None and known["mlflow_run_id"].to_list() == [run_id]:
        return False
    row = {**pairing, "mlflow_run_id": run_id, "recorded_at": datetime.now(UTC)}
    lake.deliver(RECORDINGS, key, pl.DataFrame([row]))
    return True


def record_trouble(home: Home, run: StudyRun, outcome: dict[str, Any]) -> None:
    """Mark in MLflow that a run of a study ended badly: which trials failed, and which hold numbers that moved."""
    from storage.mlflow_log import record_failed_run

    tags = {
        "mneme.study": run.study,
        "mneme.state": run.state,
        "mneme.trouble": run.sentence or "",
        "mneme.failed_trials": ",".join(outcome["failed_trial_ids"]),
        "mneme.moved_trials": ",".join(outcome["moved_trial_ids"]),
        "mneme.flow_run_id": run.flow_run_id or "",
    }
    record_failed_run(home, run.study, f"{run.study}: {run.state}", tags)


def sweep_killed_runs(home: Home) -> None:
    """End the MLflow runs that a killed study left open."""
    from storage.mlflow_log import sweep_killed

    sweep_killed(home)


@stage("record")
def record(
    home: Home, study: str, run_key: str, deliveries: list[dict[str, Any]], prompts: str | None, page: str
) -> Value:
    """Log one model on one promptset: parameters, metrics, promptset, heat maps, report; returns the run id."""
    from storage.mlflow_log import Recording, record_run

    trials = [TrialSpec.model_validate(each["trial"]) for each in deliveries]
    first = trials[0]
    frames = {each["delivery_id"]: _frames(home, each["delivery_id"]) for each in deliveries}
    curves = _metrics(trials, deliveries, frames)
    recording = Recording(
        key=run_key,
        study=study,
        name=first.finished_pairing_label,
        recorded_at_ms=int(datetime.now(UTC).timestamp() * 1000),
        tags=_tags(study, trials),
        parameters=_parameters(first),
        metrics=curves.pop(None, {}),
        curves=_by_name(curves),
        figures=_figures(trials, deliveries, frames),
        documents={"trials.json": deliveries, **_documents(home, trials, deliveries, frames)},
        files=(Path(page),) if page else (),
        prompts=None if prompts is None else Path(prompts),
        promptset=first.promptset,
    )
    return {"mlflow_run_id": record_run(home, recording)}


def _tags(study: str, trials: Sequence[TrialSpec]) -> dict[str, str]:
    first = trials[0]
    return {
        "mneme.study": study,
        "mneme.model": first.model,
        "mneme.promptset": first.promptset,
        "mneme.trials": ",".join(trial.trial_id for trial in trials),
    }


def _parameters(trial: TrialSpec) -> dict[str, str]:
    flat: dict[str, Any] = {
        "model_seed": trial.model_seed,
        "promptset_seed": trial.promptset_seed,
        "dtype": trial.model_spec.dtype,
        "bos_mode": trial.model_spec.bos_mode,
        "generator": trial.promptset_spec.generator,
        **{f"source.{name}": value for name, value in trial.model_spec.source.model_dump(mode="json").items()},
        **{f"promptset.{name}": value for name, value in trial.promptset_spec.parameters.items()},
    }
    return {name: str(value)[:500] for name, value in flat.items() if value is not None}


def _frames(home: Home, delivery_id: str) -> dict[str, Any]:
    import polars as pl

    tables = ("head_scores", "head_effects", "behavior", "controls", "reliability", *TABLES)
    paths = {table: home.lake / table / f"{delivery_id}.parquet" for table in tables}
    return {table: pl.read_parquet(path) for table, path in paths.items() if path.is_file()}


def _name(trial: TrialSpec) -> str:
    return trial.probe if trial.variant == "primary" else f"{trial.probe}.{trial.variant}"


def _metrics(
    trials: Sequence[TrialSpec], deliveries: Sequence[dict[str, Any]], frames: dict[str, dict[str, Any]]
) -> dict[int | None, dict[str, float]]:
    """Metrics by step of the training, None for the finished model."""
    metrics: dict[int | None, dict[str, float]] = defaultdict(dict)
    for trial, each in zip(trials, deliveries, strict=True):
        tables = frames[each["delivery_id"]]
        found = _metrics_of(_name(trial), tables) | circuit_metrics(_name(trial), tables)
        metrics[trial.step] |= {name: float(value) for name, value in found.items() if value is not None}
    return metrics


def _metrics_of(name: str, tables: dict[str, Any]) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    if "head_scores" in tables:
        metrics[f"{name}/max"] = tables["head_scores"]["score"].max()
        metrics[f"{name}/mean"] = tables["head_scores"]["score"].mean()
    if "head_effects" in tables:
        metrics[f"{name}/max_effect"] = tables["head_effects"]["effect"].max()
    for row in tables["behavior"].iter_rows(named=True) if "behavior" in tables else ():
        metrics[f"{name}/{row['readout']}"] = row["value"]
    for row in tables["controls"].iter_rows(named=True) if "controls" in tables else ():
        metrics[f"{name}/top_{row['k']}"] = row["value"]
        metrics[f"{name}/random_{row['k']}"] = row["control_mean"]
    if "reliability" in tables:
        metrics[f"{name}/split_half"] = tables["reliability"]["split_half"].max()
    return metrics


def _by_name(by_step: Mapping[int | None, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for step, metrics in by_step.items():
        for name, value in metrics.items():
            if step is not None:
                curves[name][step] = value
    return curves


def _figures(
    trials: Sequence[TrialSpec], deliveries: Sequence[dict[str, Any]], frames: dict[str, dict[str, Any]]
) -> dict[str, bytes]:
    from storage.report.figures import heat_map_png

    figures: dict[str, bytes] = {}
    for trial, each in zip(trials, deliveries, strict=True):
        drawing = circuit_drawing(trial, frames[each["delivery_id"]]) if trial.step is None else None
        figures |= {} if drawing is None else {f"circuits/{_name(trial)}.svg": drawing}
        for table, column in (("head_scores", "score"), ("head_effects", "effect")) if trial.step is None else ():
            frame = frames[each["delivery_id"]].get(table)
            if frame is not None:
                figures[f"heat_maps/{_name(trial)}.{column}.png"] = heat_map_png(
                    _matrix(frame, column), title=trial.label, unit=column
                )
    return figures


def _documents(
    home: Home,
    trials: Sequence[TrialSpec],
    deliveries: Sequence[dict[str, Any]],
    frames: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The selected circuit of each search, by path."""
    found = {
        f"circuits/{_name(trial)}.json": circuit_document(home, trial, each["delivery_id"])
        for trial, each in zip(trials, deliveries, strict=True)
        if trial.step is None and "circuits" in frames[each["delivery_id"]]
    }
    return {path: document for path, document in found.items() if document is not None}


def _matrix(frame: Any, column: str) -> list[list[float]]:
    rows, columns = int(frame["layer"].max()) + 1, int(frame["head"].max()) + 1
    matrix = [[float("nan")] * columns for _ in range(rows)]
    for row in frame.iter_rows(named=True):
        if row[column] is not None:
            matrix[row["layer"]][row["head"]] = row[column]
    return matrix
