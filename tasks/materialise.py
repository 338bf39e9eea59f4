"""Model in a folder: trained by a recipe (cached), local, or fetched from the hub at a commit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from storage.content import ContentStore
from storage.home import Home
from storage.specs import HubSource, LocalSource, RecipeSource, TrialSpec
from tasks.keys import key_of, recipe_parts
from tasks.narrator import Narration, listener
from tasks.stage import Value, object_of, stage

if TYPE_CHECKING:
    from mneme.weights import FolderFacts


def materialise(home: Home, trial: TrialSpec, *, use: bool, refresh: bool = False) -> Value:
    """Value with `facts` (hashes, sizes) and either `object` (a trained folder in the store) or `folder` (a path).

    `use` says that the folder will be read now: a damaged one is trained anew. Raises BadInput for a folder or hub
    model that cannot be used.
    """
    source = trial.model_spec.source
    label = trial.model if trial.model_seed is None else f"{trial.model}[{trial.model_seed}]"
    if isinstance(source, RecipeSource):
        key = key_of("materialise", recipe_parts(trial))
        inputs = {"source": source.model_dump(mode="json"), "seed": trial.model_seed, "label": label}
        return train.run(home, key, label, inputs, use=use, refresh=refresh)
    listener().begin(f"read model: {label}")
    value: Value = read_model.with_options(task_run_name=f"materialise: {label}")(home, source)
    listener().end(f"read model: {label}", "checked")
    return value


@stage("train")
def train(home: Home, source: dict[str, Any], seed: int, label: str) -> Value:
    """Run a recipe and store the folder that it wrote."""
    from mneme.recipe import Workshop, recipes
    from mneme.weights import read_folder

    found: dict[str, Any] = {}

    def write(folder: Path) -> None:
        train = recipes.get(source["recipe"]).train
        workshop = Workshop(folder, progress=Narration(f"train: {label}"))
        found["training"] = train(workshop, seed=seed, **source["parameters"])
        found["facts"] = _plain(read_folder(folder))
        found["weights_bytes"] = _weights_bytes(folder)

    reference = ContentStore(home.store).put(write)
    return {"object": reference.to_json(), **found}


@task(name="read model", persist_result=False)
def read_model(home: Home, source: LocalSource | HubSource) -> Value:
    """Check a local folder, or fetch a hub model at its commit, and say what is in it."""
    from mneme.weights import read_folder

    if isinstance(source, LocalSource):
        return folder_value(Path(source.path), read_folder(Path(source.path)), None)
    from mneme.hub import fetch

    fetched = fetch(source.id, source.revision, cache_dir=home.root / "hub")
    return folder_value(fetched.folder, read_folder(fetched.folder), fetched.commit)


def folder_value(folder: Path, facts: FolderFacts, commit: str | None) -> Value:
    """The value of a model that lies in a folder of its own."""
    return {"folder": str(folder), "facts": _plain(facts), "weights_bytes": _weights_bytes(folder), "commit": commit}


def model_folder(home: Home, value: Value) -> Path:
    """The folder of a materialised model, checked when it lies in the store; raises Damaged."""
    return Path(value["folder"]) if "folder" in value else ContentStore(home.store).folder(object_of(value))


def _plain(facts: FolderFacts) -> dict[str, Any]:
    return {name: value for name, value in asdict(facts).items() if name != "folder"}


def _weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
