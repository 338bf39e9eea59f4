"""The content store: files and folders named by what is in them, checked whenever they are used."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import sha256_file, sync_folder
from storage.identity import digest

PROMPTS = "prompts.parquet"  # the prompts' file inside a stored promptset, known without importing torch


class Damaged(Exception):
    """A stored object is missing, truncated or altered: recompute it."""


@dataclass(frozen=True)
class Reference:
    """What stands for a stored object in JSON: its address, its name inside, and the sha256 of each file of it."""

    address: str
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"address": self.address, "files": dict(self.files)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Reference:
        """The reference that `to_json` wrote."""
        return cls(str(value["address"]), {str(name): str(sha) for name, sha in value["files"].items()})


class ContentStore:
    """Objects under `root/objects/<2 hex>/<address>/`, each a folder of files that appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"

    def put(self, write: Callable[[Path], object]) -> Reference:
        """Let `write` fill an empty folder, then store it under the hash of its contents."""
        scratch = self.root / "scratch" / f"{os.getpid()}-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            write(scratch)
            reference = _describe(scratch)
            self._move_in(scratch, reference)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return reference

    def put_file(self, name: str, write: Callable[[Path], object]) -> Reference:
        """Store an object of one file that `write` fills at the path it is given."""
        return self.put(lambda folder: write(folder / name))

    def folder(self, reference: Reference, part: str = "") -> Path:
        """The object's folder after checking every file of it, or of its folder `part` alone; raises Damaged."""
        folder = self._place(reference)
        below = f"{part}/" if part else ""
        for name, expected in reference.files.items():
            if not name.startswith(below):
                continue
            path = folder / name
            if not path.is_file() or sha256_file(path) != expected:
                raise Damaged(f"{name} of object {reference.address} is missing or altered")
        return folder

    def path(self, reference: Reference) -> Path:
        """Where an object lies, unchecked."""
        return self._place(reference)

    def file(self, reference: Reference) -> Path:
        """The only file of an object, checked; raises Damaged."""
        (name,) = reference.files
        return self.folder(reference) / name

    def size(self, address: str) -> int:
        """Bytes of an object on disk, 0 when it is gone."""
        return sum(path.stat().st_size for path in self._path(address).rglob("*") if path.is_file())

    def modified(self, address: str) -> float:
        """When an object was stored, in seconds since 1970."""
        return self._path(address).stat().st_mtime

    def addresses(self) -> list[str]:
        """Every stored object."""
        return sorted(path.name for path in self.objects.glob("*/*") if path.is_dir())

    def remove(self, address: str) -> None:
        """Forget an object; its entries become damaged and are recomputed when needed."""
        shutil.rmtree(self._path(address), ignore_errors=True)

    def _move_in(self, scratch: Path, reference: Reference) -> None:
        place = self._place(reference)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            try:
                self.folder(reference)
                return
            except Damaged:
                place.rename(scratch.with_name(scratch.name + "-damaged"))
                shutil.rmtree(scratch.with_name(scratch.name + "-damaged"), ignore_errors=True)
        for path in [*scratch.rglob("*")]:
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        try:
            scratch.rename(place)
        except OSError:
            if not place.exists():  # another process stored the same object a moment ago
                raise
        sync_folder(place.parent)

    def _place(self, reference: Reference) -> Path:
        return self._path(reference.address)

    def _path(self, address: str) -> Path:
        return self.objects / address[:2] / address


def _describe(folder: Path) -> Reference:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {str(path.relative_to(folder)): sha256_file(path) for path in paths}
    return Reference(digest(files, 40), files)
