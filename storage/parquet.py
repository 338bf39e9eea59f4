"""Parquet files that know whether they are whole: each carries a seal over its own bytes and its own name.

A reader checks the seal before it parses anything, so a truncated, altered, copied or renamed file is found out, and
never read.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import polars as pl

LAYOUT = 6  # of the lake's tables (storage/layouts.py); a file of a later layout is left alone
_MARK = "mneme-layout:{layout:04d} seal:{seal}"
_MARK_PATTERN = re.compile(rb"mneme-layout:(\d{4}) seal:([0-9a-f]{64})")
_BLANK = "0" * 64


class TornFile(Exception):
    """The bytes are not what was written under this name."""


class LaterLayout(Exception):
    """The file was written by a later version of Mneme."""


def sealed_bytes(name: str, frame: pl.DataFrame) -> bytes:
    """The frame as one Parquet file whose metadata holds the seal for `name`."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", metadata={"mneme": _MARK.format(layout=LAYOUT, seal=_BLANK)})
    blank = buffer.getvalue()
    mark = _find_mark(name, blank)
    return blank[: mark.start(2)] + _seal(name, blank).encode() + blank[mark.end(2) :]


def sealed_frame(name: str, data: bytes) -> pl.DataFrame:
    """The frame inside sealed bytes; raises TornFile, or LaterLayout for a file this version does not know."""
    mark = _find_mark(name, data)
    if int(mark[1]) > LAYOUT:
        raise LaterLayout(name)
    blank = data[: mark.start(2)] + _BLANK.encode() + data[mark.end(2) :]
    if _seal(name, blank) != mark[2].decode():
        raise TornFile(f"{name} is not as it was written")
    return pl.read_parquet(io.BytesIO(data))


def layout_of(data: bytes) -> int:
    """The layout that sealed bytes, or their end, say they were written in; raises TornFile when they say none."""
    return int(_find_mark("the file", data)[1])


def layout_of_file(path: Path) -> int | None:
    """The layout that a sealed file names, from its last bytes alone and unchecked; None when it names none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            footer = int.from_bytes(file.read(4), "little")  # Parquet ends with the footer, its length and "PAR1"
            file.seek(max(0, size - 8 - footer))
            return layout_of(file.read())
    except (FileNotFoundError, TornFile):
        return None


def _find_mark(name: str, data: bytes) -> re.Match[bytes]:
    """The last mark in the file: Parquet keeps its metadata at the end."""
    start = data.rfind(b"mneme-layout:")
    mark = _MARK_PATTERN.match(data, start) if start >= 0 else None
    if mark is None:
        raise TornFile(f"{name} carries no seal")
    return mark


def _seal(name: str, blank: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\0" + blank).hexdigest()
