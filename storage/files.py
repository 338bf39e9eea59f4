"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SETTLED_SECONDS = 2.0  # file systems keep times in steps, of up to two seconds


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> str | None:
    """What differs once a file was written, replaced, renamed or touched: its inode, its size, both its times.

    Nobody can set the time of the last change, so only a disk that loses bits goes unseen. None while that time is so
    recent that another change could carry the same one.
    """
    found = path.stat()
    if time.time() - found.st_ctime < _SETTLED_SECONDS:
        return None
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is synced and becomes `target`, else it goes.

    Readers see the old file or the new one, never a part. Temporary names are unique, so writers never meet.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name[:80]}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(target: Path, write: Callable[[Path], object]) -> Path:
    """Run `write` on a temporary path, then move the result to `target`."""
    with replacing(target) as temporary:
        write(temporary)
    return target


def write_text(target: Path, text: str) -> Path:
    """Write a text file in one piece."""
    return write_file(target, lambda path: path.write_text(text, encoding="utf-8"))


def sweep_temporaries(folder: Path, older_than_seconds: float = 3600.0) -> int:
    """Remove what killed writers left behind, if it is old enough to be nobody's; returns how many."""
    removed = 0
    for path in folder.rglob(".*.tmp"):
        with suppress(FileNotFoundError):  # its writer has just put it in place
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
    return removed
