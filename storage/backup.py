"""One tar file of what a home cannot compute again cheaply: lake, store, MLflow. Writers may go on meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from mneme.errors import BadInput
from mneme.progress import Progress, silent
from storage.content import ContentStore, Reference
from storage.disk import DiskFull, is_full
from storage.entries import value_in
from storage.files import replacing
from storage.home import Home
from storage.lake import ANSWERS, Lake
from storage.locks import file_lock
from storage.manifest import DATABASE, NAME, Manifest
from storage.mlflow_copy import copy_database
from storage.parquet import LAYOUT
from storage.warehouse import refuse_later

_TRACE = "trace"  # captured activations: large, and one forward pass makes them again


@dataclass(frozen=True)
class BackedUp:
    """A backup that was written, its files and their bytes."""

    path: Path
    n_files: int
    n_bytes: int


def back_up(home: Home, target: Path, progress: Progress = silent) -> BackedUp:
    """Write a backup to `target`, a new file, or a folder in which it is named after the time (UTC).

    Order makes it consistent: what refers to a file is copied before the file, and files appear whole; the lake is
    copied under the warehouse's lock, so that nothing is forgotten in between. Raises BadInput for a target that is
    there already, lies in the home or in no folder, and for a home without results; WarehouseError for a home that a
    later version has written into; DiskFull.
    """
    now = datetime.now(UTC)
    target = _new_file(home, target, now)
    if not home.lake.is_dir():
        raise BadInput(f"there is nothing to back up in {home.root}: run a study first, or set MNEME_HOME")
    refuse_later(home)
    try:
        with replacing(target) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            _write(home, writer := _Writer(archive, progress), target.parent)
            manifest = Manifest(str(home.root), now.isoformat(), version("mneme"), LAYOUT, dict(writer.files))
            writer.add_bytes(NAME, manifest.to_bytes())
    except OSError as error:
        if is_full(error):
            raise DiskFull(target.parent) from error
        raise BadInput(f"cannot back up to {target} ({error}): mend that, or name another file or folder") from error
    return BackedUp(target, len(manifest.files), target.stat().st_size)


def _new_file(home: Home, target: Path, now: datetime) -> Path:
    target = target.expanduser().absolute()
    if target.is_dir():
        target = target / f"mneme-{now:%Y%m%d-%H%M%S}.tar"
    if target.exists():
        raise BadInput(f"{target} is there already: name a new file, or a folder for one named after the time")
    if not target.parent.is_dir():
        raise BadInput(f"there is no folder {target.parent}: make it first")
    if target.resolve().is_relative_to(home.root.resolve()):
        raise BadInput(f"{target} lies in the home and would go with it: name a file or folder outside {home.root}")
    return target


def _write(home: Home, writer: _Writer, scratch: Path) -> None:
    """Entries, the lake they name, MLflow's database, its artifacts, and the objects that the entries name."""
    entries = _entries(home)
    store = ContentStore(home.store)
    references = [Reference.from_json(value["object"]) for _, _, value in entries if value.get("object")]
    objects = {each.address: each for each in references}
    writer.total = sum(len(data) for _, data, _ in entries) + sum(map(store.size, objects)) + _bytes_beside_store(home)
    for path, data, _ in entries:
        writer.add_bytes(_name(home, path), data)
    with file_lock(home.locks / "warehouse.lock"):
        lake = Lake(home.lake)
        answers = lake.files(ANSWERS)
        for name in [*answers, *(each for each in lake.files() if not each.startswith(f"{ANSWERS}/"))]:
            writer.add_file(f"lake/{name}", home.lake / name)
    _write_mlflow(home, writer, scratch)
    for reference in objects.values():
        for inside in sorted(reference.files):
            path = store.path(reference) / inside
            writer.add_file(_name(home, path), path)


def _write_mlflow(home: Home, writer: _Writer, scratch: Path) -> None:
    """The database before the artifacts: a run that it calls finished has all of them by then."""
    if home.mlflow_database.is_file():
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".mneme-backup-") as folder:
            copy_database(home.mlflow_database, Path(folder) / DATABASE)
            writer.add_file(DATABASE, Path(folder) / DATABASE)
    for path in _files(home.mlflow_artifacts):
        data = _read(path)
        if data is not None:
            writer.add_bytes(_name(home, path), data)  # may grow while it is read: in one piece


def _entries(home: Home) -> list[tuple[Path, bytes, dict[str, Any]]]:
    """Every readable entry but those of traces: its path, its bytes, its value."""
    read = [(path, _read(path)) for path in _files(home.entries)]
    found = [(path, data, value_in(data)) for path, data in read if data is not None]
    return [(path, data, value) for path, data, value in found if value is not None and value.get("stage") != _TRACE]


@dataclass
class _Writer:
    """Adds files to a tar and remembers the sha256 of what went in."""

    archive: tarfile.TarFile
    progress: Progress
    total: int = 0
    done: int = 0
    files: dict[str, str] = field(default_factory=dict)

    def add_file(self, name: str, path: Path) -> None:
        """A file that never changes under its name; one that went meanwhile is left out."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._add(name, file, os.fstat(file.fileno()).st_size)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Bytes that were read in one piece."""
        self._add(name, io.BytesIO(data), len(data))

    def _add(self, name: str, source: BinaryIO, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        hashing = _Hashing(source)
        self.archive.addfile(info, hashing)
        self.files[name] = hashing.sha256.hexdigest()
        self.done += size
        self.progress(min(self.done, self.total), self.total, name.split("/", maxsplit=1)[0])


class _Hashing:
    """A file that hashes what is read from it."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.sha256: Any = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size)
        self.sha256.update(data)
        return data


def _files(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder; links are left out, and so is what a writer has not finished."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(".tmp"):
            yield path


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # it went meanwhile
        return None


def _name(home: Home, path: Path) -> str:
    return path.relative_to(home.root).as_posix()


def _bytes_beside_store(home: Home) -> int:
    paths = [*_files(home.lake), *_files(home.mlflow_artifacts), home.mlflow_database]
    return sum(path.stat().st_size for path in paths if path.is_file())
