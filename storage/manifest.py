"""What a backup holds: the manifest that names every file with its checksum, and which names may stand in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from storage.entries import sealed, unsealed
from storage.identity import canonical_json

NAME = "manifest.json"  # the last file of a backup: one that was cut short has none
ROOMS = ("lake", "store", "mlartifacts")
DATABASE = "mlflow.db"
_TYPES = {"home": str, "made_at": str, "mneme": str, "layout": int, "files": dict}


@dataclass(frozen=True)
class Manifest:
    """Which home was backed up, when (ISO, UTC), by which version and layout, and the sha256 of each file."""

    home: str
    made_at: str
    mneme: str
    layout: int
    files: dict[str, str]

    def to_bytes(self) -> bytes:
        """JSON with a seal over itself."""
        return canonical_json(sealed(asdict(self))).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest | None:
        """The manifest that `to_bytes` wrote; None for anything else."""
        try:
            value = unsealed(json.loads(data)) or {}
            fits = value.keys() == _TYPES.keys() and all(isinstance(value[name], _TYPES[name]) for name in _TYPES)
            if fits:
                datetime.fromisoformat(value["made_at"])
            return cls(**value) if fits else None
        except (ValueError, RecursionError):
            return None


def is_durable(name: str) -> bool:
    """Whether a backup may hold a file of this name: below a room that lasts, by a path that cannot leave it."""
    first, *rest = name.split("/")
    if name == DATABASE:
        return True
    is_plain = all(part not in ("", ".", "..") and "\0" not in part for part in rest)
    return first in ROOMS and bool(rest) and is_plain
