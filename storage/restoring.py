"""A backup becomes a home: unpacked beside it, checked file by file, published, and only then put in its place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mneme.errors import BadInput
from mneme.progress import Progress, silent
from storage.disk import DiskFull, is_full
from storage.home import Home
from storage.locks import LockBusy, file_lock
from storage.manifest import DATABASE, NAME, Manifest, is_durable
from storage.mlflow_copy import settle
from storage.parquet import LAYOUT
from storage.rendering import quoted
from storage.warehouse import Published, publish

_CHUNK = 2**20
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError)  # what tarfile raises on bytes that are no tar


@dataclass(frozen=True)
class Restored:
    """What was restored from where, what was published, and where the home of before lies, if there was one."""

    source: Path
    n_files: int
    published: Published
    kept_aside: Path | None


def restore(source: Path, home: Home, *, replace: bool = False, progress: Progress = silent) -> Restored:
    """Make `home` from a backup, or from the newest `mneme-*.tar` of a folder; the warehouse is made from the lake.

    With `replace` a home that is there is kept beside the new one under another name; else it is refused. Raises
    BadInput for a damaged or foreign backup or one of a later version, with nothing restored; DiskFull.
    """
    source = _newest(source.expanduser().absolute())
    home = Home(home.root.resolve())
    _refuse_place(home, replace)
    fresh = Home(home.root.parent / f".{home.root.name}.restoring-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        fresh.root.mkdir(parents=True)
        manifest = _unpack(source, fresh.root, progress)
        made_at_ms = int(datetime.fromisoformat(manifest.made_at).timestamp() * 1000)
        if (fresh.root / DATABASE).is_file():
            settle(fresh.mlflow_database, manifest.home, home, made_at_ms)
        published = publish(fresh)
        os.sync()
        kept_aside = _put_in_place(fresh.root, home)
    except OSError as error:
        if is_full(error):
            raise DiskFull(home.root.parent) from error
        raise BadInput(f"cannot restore to {home.root} ({error.strerror or error}): nothing was restored") from error
    finally:
        shutil.rmtree(fresh.root, ignore_errors=True)
    return Restored(source, len(manifest.files), published, kept_aside)


def _newest(source: Path) -> Path:
    if not source.is_dir():
        if not os.access(source, os.R_OK):
            raise BadInput(
                f"there is no backup {quoted(str(source), 400)} that can be read: name the file, or its folder"
            )
        return source
    found = sorted(source.glob("mneme-*.tar"))
    if not found:
        raise BadInput(f"{source} holds no backup (mneme-*.tar): name the file")
    return found[-1]


def _refuse_place(home: Home, replace: bool) -> None:
    if home.root.exists() and not home.root.is_dir():
        raise BadInput(f"{home.root} is a file: name a folder with --home")
    if home.root.is_mount():
        raise BadInput(f"{home.root} is a mount point and cannot be put in place in one piece: name a folder below it")
    if not replace and home.root.is_dir() and any(home.root.iterdir()):
        raise BadInput(
            f"{home.root} holds a home already: name another folder with --home, or ask for --replace,"
            " which keeps what is there under another name"
        )


def _unpack(source: Path, target: Path, progress: Progress) -> Manifest:
    """Write every file of a backup below `target`; returns the manifest that all of them fit, or raises BadInput."""
    found: dict[str, str] = {}
    manifest = None
    try:
        with tarfile.open(source, "r:") as archive:
            total = source.stat().st_size
            for member in archive:
                if member.name == NAME:
                    file = archive.extractfile(member)
                    manifest = None if file is None else Manifest.from_bytes(file.read())
                    continue
                found[member.name] = _unpack_member(archive, member, target)
                progress(min(member.offset_data + member.size, total), total, member.name.split("/")[0])
    except _DAMAGE as error:
        raise _damaged(source, f"{error}") from error
    if manifest is None:
        raise _damaged(source, f"it ends without {NAME}")
    if manifest.layout > LAYOUT:
        raise BadInput(f"{source} was written by a later version of Mneme ({manifest.mneme}): update Mneme first")
    wrong = sorted({name for name, _ in found.items() ^ manifest.files.items()})
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise _damaged(source, f"{wrong[0]}{more} {'is' if len(wrong) == 1 else 'are'} missing, altered or foreign")
    return manifest


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    """Write one file and return its sha256; nothing but plain files below the rooms of a home is taken."""
    file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None or not is_durable(member.name):
        raise ValueError(f"it holds {member.name[:80]!r}, which no backup holds")
    path = target / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256, left = hashlib.sha256(), member.size
    with path.open("xb") as written:
        while data := file.read(_CHUNK):
            sha256.update(data)
            written.write(data)
            left -= len(data)
    if left:
        raise EOFError("it was cut short")
    return sha256.hexdigest()


def _put_in_place(fresh: Path, home: Home) -> Path | None:
    """Rename the checked folder to the home; returns where the home of before went."""
    if not home.root.is_dir() or not any(home.root.iterdir()):
        fresh.rename(home.root)
        return None
    aside = home.root.with_name(f"{home.root.name}.before-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        with file_lock(home.locks / "warehouse.lock", timeout_seconds=0):
            home.root.rename(aside)
    except LockBusy as error:
        raise BadInput(f"{home.root} is being published into: wait until that has ended, then restore again") from error
    try:
        fresh.rename(home.root)
    except OSError:
        aside.rename(home.root)
        raise
    return aside


def _damaged(source: Path, what: str) -> BadInput:
    return BadInput(f"{source} is damaged or no backup of Mneme: {what}; nothing was restored, take another backup")
