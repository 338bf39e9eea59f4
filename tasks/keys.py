"""The identity of each stage: everything its value depends on, by name, so that a plan can say which part changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mneme.errors import BadInput
from storage.files import sha256_file
from storage.identity import code_parts, data_parts, digest, versions
from storage.signatures import declared_facts, member_module
from storage.specs import RecipeSource, TrialSpec

Parts = dict[str, Any]
ATTENTION = "mneme on sdpa"


def key_of(stage: str, parts: Parts) -> str:
    """The cache key of a stage."""
    return f"{stage}-{digest(parts)}"


def recipe_parts(trial: TrialSpec) -> Parts:
    """What a trained reference model depends on."""
    source = trial.model_spec.source
    if not isinstance(source, RecipeSource):
        raise TypeError("only a recipe is trained")
    return {
        "recipe": source.recipe,
        "parameters": source.parameters,
        "model_seed": trial.model_seed,
        **_texts(),
        **_versions(),
        **_code([member_module("recipe", source.recipe)]),
    }


def prepare_parts(trial: TrialSpec, model: Parts) -> Parts:
    """What a promptset depends on: its spec and seed, the model's tokenizer and configuration, never its weights."""
    spec = trial.promptset_spec
    return {
        "generator": spec.generator,
        "parameters": spec.parameters,
        "promptset_seed": trial.promptset_seed,
        "file": _file_hash(spec.file),
        "bos_mode": trial.model_spec.bos_mode,
        "tokenizer": model["facts"]["tokenizer_sha256"],
        "config": model["facts"]["config_sha256"],
        **_texts(),
        **_versions(),
        **_code([member_module("promptset", spec.generator), "mneme.vocabulary"]),
    }


def run_parts(trial: TrialSpec, model: Parts, promptset: Parts, device: str) -> Parts:
    """What every number of one model on one promptset depends on."""
    return {
        "weights": model["facts"]["weights_sha256"],
        "config": model["facts"]["config_sha256"],
        "promptset": promptset["content"],
        "dtype": trial.model_spec.dtype,
        "device": device.split(":", maxsplit=1)[0],
        "attention": ATTENTION,
        **_versions(),
    }


def trace_parts(site: str, run: Parts) -> Parts:
    """What a stored trace depends on."""
    return {"site": site, **run, **_code(["mneme.tracing"])}


def measure_parts(trial: TrialSpec, run: Parts, ranking: str | None, *, is_ranked_elsewhere: bool) -> Parts:
    """What a trial's items depend on; `ranking` is the key of the items whose heads an intervention takes."""
    elsewhere = {"ranked_elsewhere": True} if is_ranked_elsewhere else {}
    return {
        "probe": trial.probe,
        "parameters": trial.parameters,
        "probe_seed": trial.probe_seed if is_given_a_seed(trial) else None,
        "ranking": ranking,
        **elsewhere,
        **{name: part for name, part in run.items() if name != "promptset" or not reads_weights(trial)},
        **_code([member_module("probe", trial.probe), "mneme.measuring"]),
    }


def delivery_parts(trial: TrialSpec, measure: Parts) -> Parts:
    """What a delivery depends on: what was asked, its items, and how they are summarised."""
    code = _code([summarising_module(trial)])
    return {**measure, "asked": trial.trial_id, "probe_seed": trial.probe_seed, **code}


def summarising_module(trial: TrialSpec) -> str:
    """The module that makes rows of a trial's items: findings of circuits have one of their own."""
    is_circuit = declared_facts("probe", trial.probe)["level"] == "circuit"
    return "mneme.circuit_rows" if is_circuit else "mneme.summaries"


def is_given_a_seed(trial: TrialSpec) -> bool:
    """Whether the trial's probe draws at random: interventions, curves, circuits, and what reads the weights."""
    return declared_facts("probe", trial.probe)["level"] in ("intervention", "curve", "circuit") or reads_weights(trial)


def reads_weights(trial: TrialSpec) -> bool:
    """Whether the trial's probe looks at the weights alone: its items are the same for every promptset."""
    return bool(declared_facts("probe", trial.probe).get("reads") == "weights")


def _texts() -> Parts:
    """The texts that generators and recipes may read."""
    return {f"data.{name}": sha for name, sha in data_parts("promptsets").items()}


def _versions() -> Parts:
    return {f"version.{name}": value for name, value in versions().items()}


def _code(roots: list[str]) -> Parts:
    return {f"code.{name}": value for name, value in code_parts(roots).items()}


def _file_hash(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise BadInput(f"the promptset file {path} cannot be read: {error.strerror}") from error
