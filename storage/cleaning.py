"""What the store holds, for what, and how to let go of it."""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage.content import ContentStore, Reference
from storage.entries import Entries, Entry
from storage.files import sweep_temporaries
from storage.home import Home
from storage.lake import Lake
from storage.locks import LockBusy, file_lock
from storage.rows import rows, trial_starting_with

UNFINISHED = "unfinished"
_PURPOSE = {
    "train": "trained reference models",
    "prepare": "promptsets",
    "trace": "captured activations: a new probe on them costs no forward pass",
    "measure": "items: new statistics on them cost no forward pass",
    "deliver": "references to the lake (no files here)",
    "phase change": "phase changes of curves (no files here)",
    "claim": "verdicts of claims (no files here)",
    "overlap": "what circuits share (no files here)",
    "record": "references to MLflow runs (no files here)",
    "report": "references to report pages (no files here)",
    "training": "references to the lake (no files here)",
    UNFINISHED: "unfinished training, which goes on where it was saved",
    "unused": "objects that no entry refers to",
}

_FRESH_SECONDS = 3600.0


@dataclass(frozen=True)
class Held:
    """What one stage holds in the store."""

    stage: str
    n_entries: int
    n_objects: int
    n_bytes: int
    purpose: str


@dataclass(frozen=True)
class Forgotten:
    """A trial that is gone."""

    trial_id: str
    label: str
    n_files: int


def held(home: Home) -> list[Held]:
    """What the store holds, by stage, the unused last."""
    store, by_stage = ContentStore(home.store), _by_stage(home)
    found = []
    for stage in sorted(by_stage):
        addresses = {_address(each) for each in by_stage[stage]} - {None}
        n_bytes = sum(store.size(str(address)) for address in addresses)
        found.append(Held(stage, len(by_stage[stage]), len(addresses), n_bytes, _PURPOSE.get(stage, "")))
    unused = _unused(home)
    n_bytes = sum(path.stat().st_size for path in home.training.rglob("*") if path.is_file())
    found.append(Held(UNFINISHED, 0, len(_unfinished(home)), n_bytes, _PURPOSE[UNFINISHED]))
    found.append(Held("unused", 0, len(unused), sum(map(store.size, unused)), _PURPOSE["unused"]))
    return found


def free_stage(home: Home, stage: str) -> int:
    """Remove the entries and objects of a stage; returns the bytes freed."""
    store, entries, freed = ContentStore(home.store), Entries(home.entries), 0
    for entry in _by_stage(home).get(stage, []):
        address = _address(entry)
        entries.remove(entry.key)
        if address is not None:
            freed += store.size(address)
            store.remove(address)
    return freed


def free_unfinished(home: Home) -> int:
    """Remove unfinished training that no process works on now; returns the bytes freed."""
    freed = 0
    for folder in _unfinished(home):
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        with suppress(LockBusy), file_lock(home.locks / "training" / f"{folder.name}.lock", timeout_seconds=0):
            shutil.rmtree(folder)
            freed += n_bytes
    return freed


def free_unused(home: Home) -> int:
    """Remove objects that no entry refers to; returns the bytes freed."""
    store, freed = ContentStore(home.store), 0
    for address in _unused(home):
        if time.time() - store.modified(address) < _FRESH_SECONDS:
            continue  # a study that runs now may be about to refer to it
        freed += store.size(address)
        store.remove(address)
    return freed


def sweep(home: Home) -> None:
    """Remove what killed writers left behind an hour ago or longer."""
    for folder in (home.store, home.lake):
        if folder.is_dir():
            sweep_temporaries(folder)
    for scratch in (home.store / "scratch").glob("*"):
        if time.time() - scratch.stat().st_mtime > _FRESH_SECONDS:
            shutil.rmtree(scratch, ignore_errors=True)


def forget_trial(home: Home, start: str) -> Forgotten:
    """Remove every delivery of a trial from the lake, with its items; raises BadInput unless exactly one fits."""
    trial_id = trial_starting_with(home, start)
    (trial,) = rows(
        home, "select distinct model, promptset, probe, variant from raw.trials where trial_id = ?", [trial_id]
    )
    lake, n_files = Lake(home.lake), 0
    with file_lock(home.locks / "warehouse.lock"):  # nobody publishes or backs up the half of it
        for path in sorted((home.lake / "trials").glob("*.parquet")):
            if pl.read_parquet(path)["trial_id"].to_list() == [trial_id]:
                n_files += lake.forget(path.stem)
                _forget_items(home, f"deliver-{path.stem}")
    label = f"{trial['model']} / {trial['promptset']} / {trial['probe']}[{trial['variant']}]"
    return Forgotten(trial_id, label, n_files)


def _forget_items(home: Home, delivery_key: str) -> None:
    entries, store = Entries(home.entries), ContentStore(home.store)
    delivery = entries.read(delivery_key) or {}
    items = entries.read(str(delivery.get("items"))) or {}
    if items.get("object"):
        store.remove(Reference.from_json(items["object"]).address)
    entries.remove(str(delivery.get("items")))
    entries.remove(delivery_key)


def _by_stage(home: Home) -> dict[str, list[Entry]]:
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in Entries(home.entries).all():
        grouped[str(entry.value.get("stage", "unknown"))].append(entry)
    return grouped


def _address(entry: Entry) -> str | None:
    value = entry.value.get("object")
    return Reference.from_json(value).address if value else None


def _unfinished(home: Home) -> list[Path]:
    return sorted(home.training.iterdir()) if home.training.is_dir() else []


def _unused(home: Home) -> list[str]:
    used = {_address(entry) for entry in Entries(home.entries).all()}
    for path in (home.store / "waiting").glob("*.json"):
        used.add(Reference.from_json(json.loads(path.read_text())["value"]["object"]).address)
    return [address for address in ContentStore(home.store).addresses() if address not in used]
