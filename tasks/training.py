"""What was measured while a reference model was trained: streamed to MLflow as it comes, and rows in the lake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.content import ContentStore
from storage.entries import Entries
from storage.home import Home
from storage.identity import digest
from storage.lake import Delivered, Lake
from storage.locks import LockBusy, file_lock
from storage.specs import TrialSpec
from tasks.narrator import Narration
from tasks.stage import Value, object_of, stage

if TYPE_CHECKING:
    from mneme.recipe import Workshop

MEASURES = "training.json"


@contextmanager
def workshop_in(home: Home, folder: Path, asked: dict[str, Any]) -> Iterator[Workshop]:
    """A workshop that writes into `folder`, keeps unfinished training below the home and streams to MLflow.

    `asked` holds key, label, source and seed. Two processes never train the same model at once.
    """
    from mneme.recipe import Workshop
    from storage.mlflow_log import training_run

    key, source = asked["key"], asked["source"]
    parameters = {"recipe": source["recipe"], "model_seed": asked["seed"], **source["parameters"]}
    tags = {"mneme.model": asked["label"], "mneme.model_seed": str(asked["seed"])}
    with (
        file_lock(_lock(home, key)),
        training_run(
            home, key, asked["label"], tags, {name: str(each)[:500] for name, each in parameters.items()}
        ) as log,
    ):
        yield Workshop(folder, home.training / key, Narration(f"train: {asked['label']}"), log)


def forget_unfinished(home: Home, key: str) -> None:
    """Remove the state of a training that is finished and stored, unless somebody trains it anew now."""
    if (home.training / key).is_dir():
        with suppress(LockBusy), file_lock(_lock(home, key), timeout_seconds=0):
            shutil.rmtree(home.training / key)


def training_id(trial: TrialSpec) -> str:
    """Hash of the training that was asked for: 16 hex digits."""
    source = trial.model_spec.source.model_dump(mode="json")
    return digest({"model": trial.model, "source": source, "model_seed": trial.model_seed}, 16)


def training_key(trial: TrialSpec, key: str) -> str:
    """Cache key of the delivery of a training's rows; `key` is that of the trained model."""
    return f"training-{digest({'asked': training_id(trial), 'model': key})}"


def are_measures_delivered(home: Home, trial: TrialSpec, key: str) -> bool:
    """Whether the lake holds what was measured in this very training."""
    value = Entries(home.entries).read(training_key(trial, key))
    return value is not None and all(Lake(home.lake).intact(Delivered(**each)) for each in value["files"])


def deliver_measures(home: Home, trial: TrialSpec, key: str, trained: Value) -> None:
    """Put the rows of `raw.training` into the lake."""
    about = {"training_id": training_id(trial), "model": trial.model, "model_seed": trial.model_seed}
    deliver.run(
        home, training_key(trial, key), trial.finished_model_label, {"about": about, "trained": trained}, refresh=True
    )


@stage("training")
def deliver(home: Home, about: dict[str, Any], trained: Value) -> Value:
    """One lake file of what a training measured; none when its recipe measured nothing."""
    import polars as pl

    path = ContentStore(home.store).folder(object_of(trained)) / MEASURES
    measures = json.loads(path.read_text(encoding="utf-8"))["measures"] if path.is_file() else []
    if not measures:
        return {"files": []}
    types = {"value": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64, "n_items": pl.Int64, "step": pl.Int64}
    frame = pl.DataFrame([{**about, **each} for each in measures], schema_overrides=types, infer_schema_length=None)
    return {"files": [asdict(Lake(home.lake).deliver("training", about["training_id"], frame))]}


def _lock(home: Home, key: str) -> Path:
    return home.locks / "training" / f"{key}.lock"
