"""What a stage computed, as small sealed JSON: the values behind Prefect's cache keys.

Prefect writes one file per key (a JSON record whose `result` is our value); this module reads the same files without
Prefect, so that a plan or a clean-up needs no server. A value carries a seal, the hash of its own
canonical JSON: an altered or torn file reads as absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.identity import canonical_json, digest


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with its seal."""
    return {"value": json.loads(canonical_json(value)), "seal": digest(value, 40)}


def unsealed(record: object) -> dict[str, Any] | None:
    """The value inside a sealed record, None when the seal does not fit."""
    if not isinstance(record, dict) or set(record) != {"value", "seal"} or not isinstance(record["value"], dict):
        return None
    value: dict[str, Any] = record["value"]
    return value if digest(value, 40) == record["seal"] else None


def value_in(data: bytes) -> dict[str, Any] | None:
    """The value in the bytes of an entry's file; None when they are damaged."""
    try:
        result = json.loads(data)["result"]
        return unsealed(json.loads(result) if isinstance(result, str) else result)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class Entry:
    """One stage result on disk."""

    key: str
    path: Path
    value: dict[str, Any]


class Entries:
    """The folder in which Prefect keeps its results, one file per key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> dict[str, Any] | None:
        """The value of a key; None when there is none or its file is damaged."""
        try:
            return value_in((self.folder / key).read_bytes())
        except OSError:
            return None

    def remove(self, key: str) -> None:
        """Forget one key."""
        (self.folder / key).unlink(missing_ok=True)

    def all(self) -> list[Entry]:
        """Every readable entry, by key."""
        if not self.folder.is_dir():
            return []
        found = ((path, self.read(path.name)) for path in sorted(self.folder.iterdir()) if path.is_file())
        return [Entry(path.name, path, value) for path, value in found if value is not None]
