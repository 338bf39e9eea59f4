"""Model in a folder: trained by a recipe (cached), local, or fetched from the hub at a commit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from mneme.errors import NotApplicable
from storage.content import ContentStore, Damaged
from storage.entries import Entries
from storage.home import Home
from storage.model_steps import source_at, unkept
from storage.specs import HubSource, LocalSource, RecipeSource, TrialSpec
from tasks.keys import key_of, recipe_parts
from tasks.narrator import listener
from tasks.stage import Value, object_of, stage
from tasks.training import are_measures_delivered, deliver_measures, forget_unfinished, workshop_in

if TYPE_CHECKING:
    from mneme.weights import FolderFacts


def materialise(home: Home, trial: TrialSpec, *, use: bool, refresh: bool = False) -> Value:
    """Value with `facts` (hashes, sizes) and either `object` (a trained folder in the store) or `folder` (a path).

    At a step of the training, `part` says where the step's weights lie inside the object. `use` says that the folder
    will be read now: a damaged one is trained anew. Raises BadInput for a folder, hub model or step that cannot be
    used, NotApplicable for a step after the end of the training.
    """
    source, label = trial.model_spec.source, trial.model_label
    if isinstance(source, RecipeSource):
        is_part = trial.step is not None  # of which only its own files are checked, not those of all the steps
        trained = at_step(trial, _trained(home, trial, source, use=use and not is_part, refresh=refresh))
        if use and is_part and not _is_there(home, trained):
            return at_step(trial, _trained(home, trial, source, use=True, refresh=refresh))
        return trained
    if isinstance(source, HubSource):
        source = source_at(trial.model_spec, trial.step)
    listener().begin(f"read model: {label}")
    value: Value = read_model.with_options(task_run_name=f"materialise: {label}")(home, source)
    listener().end(f"read model: {label}", "checked")
    return value


def _trained(home: Home, trial: TrialSpec, source: RecipeSource, *, use: bool, refresh: bool) -> Value:
    """The trained model, and in the lake what was measured on the way."""
    key, label = key_of("materialise", recipe_parts(trial)), trial.finished_model_label
    is_delivered = not refresh and are_measures_delivered(home, trial, key)
    inputs = {"source": source.model_dump(mode="json"), "seed": trial.model_seed, "label": label, "key": key}
    value = train.run(home, key, label, inputs, use=use or not is_delivered, refresh=refresh)
    if not is_delivered:
        deliver_measures(home, trial, key, value)
    forget_unfinished(home, key)
    return value


def is_trained(home: Home, trial: TrialSpec) -> bool:
    """Whether the trial's model needs no training, or its training has ended and is stored."""
    if not isinstance(trial.model_spec.source, RecipeSource):
        return True
    return Entries(home.entries).read(key_of("materialise", recipe_parts(trial))) is not None


def at_step(trial: TrialSpec, value: Value) -> Value:
    """The value of a trained model at the step that the trial asks for; raises NotApplicable and BadInput."""
    if trial.step is None:
        return value
    step, n_steps = trial.step, int(value["training"].get("steps", 0))  # what is counted, not trained, has no steps
    kept = value["kept"]
    if step == n_steps and str(step) not in kept:
        return value
    if str(step) in kept:
        return {**value, **kept[str(step)]}
    if step > n_steps:
        raise NotApplicable(f"training ended at step {n_steps}: model {trial.finished_model_label} has no step {step}")
    raise unkept(trial.model, step, sorted(map(int, kept)))


@stage("train")
def train(home: Home, source: dict[str, Any], seed: int, label: str, key: str) -> Value:
    """Run a recipe and store the folder that it wrote, with the kept steps below it."""
    from mneme.recipe import recipes
    from mneme.weights import read_folder

    found: dict[str, Any] = {}
    asked = {"source": source, "seed": seed, "label": label, "key": key}

    def write(folder: Path) -> None:
        recipe = recipes.get(source["recipe"])
        with workshop_in(home, folder, asked) as workshop:
            found["training"] = recipe.train(workshop, seed=seed, **source["parameters"])
        found["facts"] = _plain(read_folder(folder))
        found["weights_bytes"] = _weights_bytes(folder)
        found["kept"] = {each.name.removeprefix("step-"): _kept(folder, each) for each in folder.glob("checkpoints/*")}

    reference = ContentStore(home.store).put(write)
    return {"object": reference.to_json(), **found}


def _kept(folder: Path, checkpoint: Path) -> Value:
    """What is known of the weights of one step."""
    from mneme.weights import read_folder

    part = str(checkpoint.relative_to(folder))
    return {"part": part, "facts": _plain(read_folder(checkpoint)), "weights_bytes": _weights_bytes(checkpoint)}


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
    if "folder" in value:
        return Path(value["folder"])
    part = str(value.get("part", ""))
    return ContentStore(home.store).folder(object_of(value), part) / part


def _is_there(home: Home, value: Value) -> bool:
    try:
        model_folder(home, value)
    except Damaged:
        return False
    return True


def _plain(facts: FolderFacts) -> dict[str, Any]:
    return {name: value for name, value in asdict(facts).items() if name != "folder"}


def _weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
