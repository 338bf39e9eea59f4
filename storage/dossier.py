"""Everything about one trial, as text."""

from __future__ import annotations

import json
from typing import Any

from storage.entries import Entries
from storage.home import Home
from storage.rows import rows, trial_starting_with

_TABLES = (
    "item_scores",
    "head_scores",
    "head_effects",
    "behavior",
    "controls",
    "curves",
    "curve_items",
    "item_conditions",
    "reliability",
    "circuits",
    "circuit_edges",
    "circuit_measures",
)


def dossier(home: Home, start: str) -> str:
    """Spec, provenance, timings, files and row counts of the trial whose id starts with `start`; history included.

    Raises BadInput unless exactly one trial fits.
    """
    trial_id = trial_starting_with(home, start)
    found = rows(home, "select * from raw.trials where trial_id = ? order by delivered_at desc", [trial_id])
    answers = rows(home, "select * from raw.answers where trial_id = ? order by answered_at desc", [trial_id])
    current = answers[0]["delivery_id"] if answers else None
    ordered = sorted(found, key=lambda each: each["delivery_id"] != current)
    lines = [f"trial {trial_id}", ""]
    lines += _section("asked", _flat(json.loads(ordered[0]["spec"])))
    lines += _section(
        "studies", {each["study"]: f"answered {each['answered_at']:%Y-%m-%d %H:%M:%S}" for each in answers}
    )
    for each in ordered:
        lines += _delivery(home, each, each["delivery_id"] == current)
    return "\n".join(lines) + "\n"


def _delivery(home: Home, row: dict[str, Any], is_current: bool) -> list[str]:
    delivery_id = row["delivery_id"]
    about = {
        name: row[name]
        for name in ("status", "error", "delivered_at", "seconds", "forwards", "device", "dtype", "unit")
        if row[name] is not None
    }
    value = Entries(home.entries).read(f"deliver-{delivery_id}") or {"files": []}
    files = {each["path"]: f"{each['n_rows']} rows, sha256 {each['sha256'][:12]}" for each in value["files"]}
    items = Entries(home.entries).read(str(value.get("items")))
    if items and items.get("object"):
        files[f"store object {items['object']['address']}"] = "items: one value per prompt"
    if items and items.get("items_per_forward"):
        about["items per forward"] = items["items_per_forward"]
    lines = _section(f"delivery {delivery_id}" + (" (current)" if is_current else " (history)"), about)
    lines += _section("  versions", json.loads(row["versions"]))
    lines += _section("  identity", json.loads(row["identity"]))
    lines += _section("  files", files)
    lines += _section("  rows", _counts(home, delivery_id))
    return lines


def _counts(home: Home, delivery_id: str) -> dict[str, int]:
    counts = {
        table: rows(home, f"select count(*) as n from raw.{table} where delivery_id = ?", [delivery_id])[0]["n"]  # noqa: S608  our own names
        for table in _TABLES
    }
    return {table: n for table, n in counts.items() if n}


def _section(title: str, content: dict[str, Any]) -> list[str]:
    width = max((len(name) for name in content), default=0)
    indent = " " * (len(title) - len(title.lstrip()) + 2)
    return [title, *(f"{indent}{name:<{width}}  {value}" for name, value in content.items()), ""]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, dict) and each:
            flat |= _flat(each, f"{prefix}{name}.")
        else:
            flat[prefix + name] = each
    return flat
