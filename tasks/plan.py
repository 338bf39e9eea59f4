"""What a study would do, without doing it: what is delivered, what is not and why, and what that costs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mneme.errors import NotApplicable
from storage.entries import Entries
from storage.home import Home
from storage.identity import changed_parts
from storage.model_steps import source_at
from storage.signatures import declared_facts
from storage.specs import RecipeSource, TrialSpec
from tasks.identify import Identified, identify, ranking_trial
from tasks.keys import Parts, key_of, prepare_parts, recipe_parts, run_parts
from tasks.materialise import at_step, folder_value
from tasks.sizes import MIB, fits, trace_bytes
from tasks.stage import Value, is_whole


@dataclass(frozen=True)
class Planned:
    """One trial of a plan; a cost that cannot be known yet is None.

    forwards: items sent through the model; seconds: as it took last time, else counted operations at the speed of
    this machine; memory_mib: weights and the largest trace; disk_mib: what the store will grow by.
    """

    trial: TrialSpec
    is_cached: bool
    why: str
    forwards: int | None = 0
    seconds: float | None = 0.0
    memory_mib: float | None = 0.0
    disk_mib: float | None = 0.0


@dataclass(frozen=True)
class Before:
    """How a trial was answered last: the identity of that delivery, its seconds and forward passes."""

    identity: Mapping[str, Any]
    seconds: float | None
    forwards: int | None


def plan_pairing(
    home: Home, trials: list[TrialSpec], device: str, limit_mib: float, before: Mapping[str, Before]
) -> list[Planned]:
    """Plan the trials of one model on one promptset; `before` holds earlier answers by trial id."""
    first, entries = trials[0], Entries(home.entries)
    try:
        model = known_model(home, first)
    except NotApplicable as reason:
        return [Planned(trial, True, f"not applicable: {reason}") for trial in trials]
    if model is None:
        return [_unknown(trial, "the model is not here yet: it will be trained or fetched") for trial in trials]
    promptset = entries.read(key_of("prepare", prepare_parts(first, model)))
    if promptset is None:
        return [_unknown(trial, "the promptset is not prepared yet") for trial in trials]
    if "not_applicable" in promptset:
        return [Planned(trial, True, f"not applicable: {promptset['not_applicable']}") for trial in trials]
    run = run_parts(first, model, promptset, device)
    rate = _operations_per_second()
    planned = []
    for trial in trials:
        try:
            asked = identify(trial, run, _elsewhere(entries, trial, model, device))
        except _Unprepared:
            planned.append(_unknown(trial, "the promptset that ranks its heads is not prepared yet"))
        except NotApplicable as reason:
            planned.append(Planned(trial, True, f"not applicable: {reason}"))
        else:
            planned.append(_planned(home, asked, model, promptset, limit_mib, before.get(trial.trial_id), rate))
    return planned


class _Unprepared(Exception):
    """A promptset is not in the store yet."""


def _elsewhere(entries: Entries, trial: TrialSpec, model: Value, device: str) -> Parts | None:
    """Identity of the model on the other promptset that ranks a trial's heads, None where there is none."""
    ranked = ranking_trial(trial)
    if ranked is None or trial.ranked_on is None:
        return None
    promptset = entries.read(key_of("prepare", prepare_parts(ranked, model)))
    if promptset is None:
        raise _Unprepared
    if "not_applicable" in promptset:
        raise NotApplicable(promptset["not_applicable"])
    return run_parts(ranked, model, promptset, device)


def known_model(home: Home, trial: TrialSpec) -> Value | None:
    """The materialised model's value if that needs no training and no network, else None; raises as `materialise`."""
    source = trial.model_spec.source
    if isinstance(source, RecipeSource):
        trained = Entries(home.entries).read(key_of("materialise", recipe_parts(trial)))
        return None if trained is None else at_step(trial, trained)
    from pathlib import Path

    from mneme.weights import read_folder

    if source.kind == "local":
        return folder_value(Path(source.path), read_folder(Path(source.path)), None)
    from mneme.hub import cached_folder

    source = source_at(trial.model_spec, trial.step)
    folder = cached_folder(source.id, source.revision, cache_dir=home.root / "hub")
    return None if folder is None else folder_value(folder, read_folder(folder), None)


def read_before(rows: list[dict[str, Any]]) -> dict[str, Before]:
    """Earlier answers by trial id from rows of `raw.trials`, oldest first."""
    return {
        row["trial_id"]: Before(json.loads(row["identity"]), row["seconds"], row["forwards"])
        for row in rows
        if row["status"] == "delivered"
    }


def _planned(  # noqa: PLR0913  a plan weighs everything it knows
    home: Home,
    asked: Identified,
    model: Value,
    promptset: Value,
    limit_mib: float,
    before: Before | None,
    rate: float,
) -> Planned:
    if asked.is_delivered(home):
        return Planned(asked.trial, True, "delivered")
    entries = Entries(home.entries)
    items = entries.read(asked.measure_key)
    why = _why(asked, before)
    if is_whole(home, items):
        return Planned(asked.trial, False, why + "; its items are stored, only the summary is missing")
    forwards, disk = _forwards(home, asked, model, promptset, limit_mib, before)
    seconds = before.seconds if before else None
    if seconds is None and forwards is not None:
        seconds = forwards * promptset["n_positions"] * 2.0 * _n_weights(model) / rate
    memory = (4 * _n_weights(model) + (disk or 0) * MIB) / MIB
    return Planned(asked.trial, False, why, forwards, seconds, memory, disk)


def _why(asked: Identified, before: Before | None) -> str:
    if before is None:
        return "never answered"
    changed = changed_parts(before.identity, asked.parts)
    return "changed: " + ", ".join(changed) if changed else "its files in the lake are missing or altered"


def _forwards(
    home: Home, asked: Identified, model: Value, promptset: Value, limit_mib: float, before: Before | None
) -> tuple[int | None, float | None]:
    """Items to send through the model and MiB to store."""
    n_items = int(promptset["n_items"])
    if declared_facts("probe", asked.trial.probe).get("reads") == "prompts":
        return 0, 0.1
    if asked.site is None:
        return (before.forwards if before else None), 0.1
    if not fits(model, promptset, asked.site, limit_mib):
        return n_items, 0.1
    if is_whole(home, Entries(home.entries).read(str(asked.trace_key))):
        return 0, 0.1
    return n_items, trace_bytes(model, promptset, asked.site) / MIB


def _n_weights(model: Value) -> float:
    """Weights of a model, from the size of its files at four bytes each."""
    return float(model["weights_bytes"]) / 4


def _operations_per_second() -> float:
    """Float32 multiply-adds x 2 of this machine, measured on one matrix product."""
    matrix = np.ones((512, 512), dtype=np.float32)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(5):
        matrix @ matrix
    return 5 * 2 * 512.0**3 / max(time.perf_counter() - started, 1e-6)


def _unknown(trial: TrialSpec, why: str) -> Planned:
    return Planned(trial, False, why, None, None, None, None)
