"""A small disk of its own, filled to the last byte, and files spoilt in the ways of disks."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of so many MiB, mounted at a new folder; skips the test where nobody may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Write until nothing more fits on the disk of `ballast`."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (2**20, 2**12, 1):
            _write_until_full(descriptor, b"\0" * size)
    finally:
        os.close(descriptor)


def _write_until_full(descriptor: int, block: bytes) -> None:
    try:
        while True:
            os.write(descriptor, block)
    except OSError:
        return


def damage(path: Path, draw: random.Random) -> str:
    """Spoil a file in one of five ways; returns which."""
    data = path.read_bytes()
    place = draw.randrange(len(data)) if data else 0
    how = draw.choice(["truncated", "altered", "emptied", "overwritten", "removed"])
    if how == "removed":
        path.unlink()
    elif how == "altered" and data:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :])
    else:
        path.write_bytes({"truncated": data[:place], "overwritten": draw.randbytes(len(data))}.get(how, b""))
    return how
