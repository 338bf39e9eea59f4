"""MLflow: a run per model x promptset of a study, a run per training. The only module that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mneme.errors import MnemeError
from storage.disk import is_full
from storage.files import sha256_file
from storage.home import Home
from storage.locks import LockBusy, file_lock
from storage.redacting import redacted

RUN_KEY = "mneme.run_key"
TRAINING = "training"  # the experiment of all trainings
_FINAL = ("FINISHED",)
_METRICS_AT_ONCE = 1000  # as many as a server takes
_LONGEST_TAG = 5000  # characters that a server takes
_logger = logging.getLogger("mneme")


class TrackingError(MnemeError):
    """MLflow's server or database cannot be used now; nothing that was computed is lost."""


@dataclass(frozen=True)
class Recording:
    """What MLflow is told about one model on one promptset in one study.

    `key` names the content: the same key is recorded once. `metrics` and `parameters` are flat, `curves` hold metrics
    by training step; `figures` are PNG bytes and `documents` JSON values by artifact path; `files` are copied;
    `prompts` is the promptset's Parquet file.
    """

    key: str
    study: str
    name: str
    recorded_at_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    prompts: Path | None = None
    promptset: str = ""


def record_run(home: Home, recording: Recording) -> str:
    """Log a recording and return its run id; the same key twice is one run, a killed attempt is taken up again."""
    with file_lock(_lock(home, recording.key)), _marked(home, recording.key), _client(home) as client:
        experiment = _experiment(home, client, recording.study)
        known = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{recording.key}'", max_results=1)
        if known and known[0].info.status in _FINAL:
            return str(known[0].info.run_id)
        tags = {**recording.tags, RUN_KEY: recording.key, "mlflow.runName": recording.name}
        run_id = str(known[0].info.run_id if known else client.create_run(experiment, tags=tags).info.run_id)
        client.update_run(run_id, status="RUNNING")
        try:
            _log(client, run_id, recording)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        return run_id


@contextmanager
def training_run(
    home: Home, key: str, name: str, tags: Mapping[str, str], parameters: Mapping[str, str]
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """One run for one training, open as long as the block: yields `log(step, measures)`.

    A training that goes on after a kill goes on in the same run, and steps that are there already are not logged again.
    The run ends FINISHED, FAILED with an error, KILLED when interrupted (or by `sweep_killed`).
    """
    with file_lock(_lock(home, key)), _marked(home, key), _client(home) as client:
        run_id = _training_run(client, _experiment(home, client, TRAINING), key, {**tags, "mlflow.runName": name})
        _log_parameters(client, run_id, parameters)
        last_step = _last_step(client, run_id)

        def log(step: int, measures: Mapping[str, float]) -> None:
            if step > last_step:
                _stream(client, run_id, step, measures)

        try:
            yield log
        except BaseException as error:
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        client.set_terminated(run_id, "FINISHED")


def _training_run(client: Any, experiment: str, key: str, tags: Mapping[str, str]) -> str:
    known = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{key}'", max_results=1)
    if not known:
        return str(client.create_run(experiment, tags={**tags, RUN_KEY: key}).info.run_id)
    client.update_run(known[0].info.run_id, status="RUNNING")
    return str(known[0].info.run_id)


def _last_step(client: Any, run_id: str) -> int:
    """The last step that a run knows a number of; -1 when it knows none."""
    names = client.get_run(run_id).data.metrics
    return max((each.step for name in names for each in client.get_metric_history(run_id, name)), default=-1)


def _log_parameters(client: Any, run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Param  # noqa: PLC0415

    client.log_batch(run_id, params=[Param(name, redacted(value)) for name, value in sorted(parameters.items())])


def _stream(client: Any, run_id: str, step: int, measures: Mapping[str, float]) -> None:
    from mlflow.entities import Metric  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    at = int(time.time() * 1000)
    try:
        client.log_batch(run_id, metrics=[Metric(name, value, at, step) for name, value in sorted(measures.items())])
    except MlflowException as error:
        _logger.warning("MLflow did not take the measures of step %d, training goes on: %s", step, redacted(str(error)))


def record_failed_run(home: Home, study: str, name: str, tags: Mapping[str, str]) -> None:
    """A FAILED run in the study's experiment, with nothing but tags: what happened stays visible when it is over.

    An MLflow that does not answer is a warning: the trouble itself must be what the user hears of.
    """
    try:
        with _client(home) as client:
            known = {"mlflow.runName": name, **{key: redacted(text)[:_LONGEST_TAG] for key, text in tags.items()}}
            run = client.create_run(_experiment(home, client, study), tags=known)
            client.set_terminated(run.info.run_id, "FAILED")
    except Exception as error:
        _logger.warning("MLflow did not take the run that failed: %s", redacted(str(error)))


def sweep_killed(home: Home) -> list[str]:
    """End the runs that a killed process left RUNNING; returns their ids. Costs nothing when there are none."""
    swept: list[str] = []
    for mark in sorted((home.locks / "mlflow").glob("*.open")):
        key = mark.stem
        try:
            with file_lock(_lock(home, key), timeout_seconds=0):
                with _client(home) as client:
                    names = [each.experiment_id for each in client.search_experiments()]
                    for run in client.search_runs(names, f"tags.`{RUN_KEY}` = '{key}'"):
                        if run.info.status == "RUNNING":
                            client.set_terminated(run.info.run_id, "KILLED")
                            swept.append(str(run.info.run_id))
                mark.unlink(missing_ok=True)
        except LockBusy:
            continue
    return swept


def has_store(home: Home) -> bool:
    """Whether what was recorded can still be there: a server keeps it, or the home's own database does."""
    return "MLFLOW_TRACKING_URI" in os.environ or home.mlflow_database.exists()


def ui_command(home: Home) -> str:
    """The command that opens MLflow's pages on this home."""
    return f"mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{home.mlflow_database}"


def _log(client: Any, run_id: str, recording: Recording) -> None:
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    at = recording.recorded_at_ms  # an explicit time: logging twice leaves one entry
    metrics = [Metric(name, value, at, 0) for name, value in sorted(recording.metrics.items())]
    for name, curve in sorted(recording.curves.items()):
        metrics += [Metric(name, value, at, step) for step, value in sorted(curve.items())]
    parameters = [Param(name, redacted(value)) for name, value in sorted(recording.parameters.items())]
    client.log_batch(run_id, params=parameters)
    for start in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
    if recording.prompts is not None:
        client.log_inputs(run_id, datasets=[_dataset(recording.prompts, recording.promptset)])
    for path, document in sorted(recording.documents.items()):
        client.log_dict(run_id, json.loads(redacted(json.dumps(document))), path)
    for path, png in sorted(recording.figures.items()):
        _log_bytes(client, run_id, png, path)
    for file in recording.files:
        client.log_artifact(run_id, str(file))


def _log_bytes(client: Any, run_id: str, content: bytes, path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / Path(path).name
        target.write_bytes(content)
        client.log_artifact(run_id, str(target), str(Path(path).parent))


def _dataset(prompts: Path, name: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

    source = json.dumps({"uri": str(prompts)})
    dataset = Dataset(name, sha256_file(prompts)[:36], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "probing")])


def _experiment(home: Home, client: Any, study: str) -> str:
    known = client.get_experiment_by_name(study)
    if known is not None:
        return str(known.experiment_id)
    return str(client.create_experiment(study, artifact_location=(home.mlflow_artifacts / study).as_uri()))


@contextmanager
def _client(home: Home) -> Iterator[Any]:
    """A client that has been answered; raises TrackingError in one sentence when MLflow fails, then or later.

    A full disk is left to those who say so. A server's address may hold a password, which is never said.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    server = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        # first contact creates the tables: two processes on a fresh file would race the migrations
        with file_lock(home.locks / "mlflow-first-contact.lock"):
            client = mlflow.MlflowClient(server or f"sqlite:///{home.mlflow_database}")
            client.search_experiments(max_results=1)
        yield client
    except (mlflow.MlflowException, SQLAlchemyError) as error:
        if is_full(error):
            raise
        problem = redacted(str(error).splitlines()[0] if str(error) else type(error).__name__)[:300]
        raise TrackingError(_unanswered(home, server, problem)) from None


def _unanswered(home: Home, server: str | None, problem: str) -> str:
    if server:
        return f"MLflow at {redacted(server)} does not answer ({problem}): start it, or unset MLFLOW_TRACKING_URI"
    return (
        f"MLflow's database {home.mlflow_database} does not answer ({problem}): close what holds it and run again, or"
        " move it away if it is damaged, and the next run records anew"
    )


@contextmanager
def _marked(home: Home, key: str) -> Iterator[None]:
    """Leave a mark while a run is open, so that a kill in between can be found without asking MLflow."""
    mark = home.locks / "mlflow" / f"{key}.open"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield
    mark.unlink(missing_ok=True)


def _lock(home: Home, key: str) -> Path:
    return home.locks / "mlflow" / f"{key}.lock"
