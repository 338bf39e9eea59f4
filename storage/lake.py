"""The lake: one immutable Parquet file per table and delivery, from which everything else can be rebuilt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from mneme.errors import BadInput
from storage.disk import DiskFull, is_full
from storage.files import replacing, sha256_file
from storage.parquet import TornFile, sealed_bytes, sealed_frame

ANSWERS = "answers"
RECORDINGS = "recordings"
QUARANTINE = "quarantine"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class Delivered:
    """What stands for a delivered file: its table, its path inside the lake, its checksum, its rows."""

    table: str
    path: str
    sha256: str
    n_rows: int


class Lake:
    """The folder `lake/<table>/<key>.parquet`; any number of processes may deliver at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deliver(self, table: str, key: str, frame: pl.DataFrame) -> Delivered:
        """Store the rows of one key, replacing what was there; the same rows leave the file as it is.

        Raises BadInput when the rows are not what the table promises, or when the key is no file name; DiskFull when
        the disk is full.
        """
        # pandera takes a second to import, and readers of the lake do not need it
        from storage.validating import validated  # noqa: PLC0415

        name = _file_name(table, key)
        rows = validated(table, frame)
        if table != ANSWERS and "delivery_id" in rows.columns and (rows["delivery_id"] != key).any():
            raise BadInput(f"table {table}: the file of delivery {key} holds rows of another delivery")
        data = sealed_bytes(name, rows)
        delivered = Delivered(table, name, sha256(data).hexdigest(), len(rows))
        if not self.intact(delivered):
            self._write(name, data)
        return delivered

    def answer(self, study: str, trial_id: str, delivery_id: str) -> Delivered:
        """Say which delivery answers a trial of a study from now on; nothing is written when it already does.

        The row names the delivery with results that answered before, so that the two can be compared.
        """
        name = _file_name(ANSWERS, f"{study}--{trial_id}")
        known = self._read(name)
        if known is not None and known["delivery_id"].to_list() == [delivery_id]:
            return Delivered(ANSWERS, name, sha256_file(self.folder / name), len(known))
        previous = None if known is None else self._last_with_results(known.row(0, named=True))
        row = {
            "study": study,
            "trial_id": trial_id,
            "delivery_id": delivery_id,
            "answered_at": datetime.now(UTC),
            "previous_delivery_id": None if previous == delivery_id else previous,
        }
        return self.deliver(ANSWERS, f"{study}--{trial_id}", pl.DataFrame([row]))

    def rows(self, table: str, key: str) -> pl.DataFrame | None:
        """The rows of one key as they were delivered; None when the file is missing or torn."""
        return self._read(_file_name(table, key))

    def intact(self, delivered: Delivered) -> bool:
        """Whether the file is still there, byte for byte."""
        path = self.folder / delivered.path
        return path.is_file() and sha256_file(path) == delivered.sha256

    def files(self, table: str | None = None) -> list[str]:
        """Paths inside the lake of all files of a table (of every table when none is named)."""
        return [
            f"{name}/{path.name}"
            for name in ([table] if table else self.tables())
            for path in sorted((self.folder / name).glob("*.parquet"))
            if path.is_file()  # no folder of that name, no link to nowhere
        ]

    def tables(self) -> list[str]:
        """Names of the tables that have a folder, answers first."""
        names = sorted(path.name for path in self.folder.glob("*") if path.is_dir() and path.name != QUARANTINE)
        return sorted(names, key=lambda name: name != ANSWERS)

    def forget(self, delivery_id: str) -> int:
        """Remove every file of a delivery and every answer that names it; returns how many files went."""
        named = _file_name(ANSWERS, delivery_id).removeprefix(f"{ANSWERS}/")
        doomed = []
        for name in self.files():  # answers come first: no answer ever names what is gone
            table, file_name = name.split("/")
            answers = self._read(name) if table == ANSWERS else None
            if file_name == named or (answers is not None and delivery_id in answers["delivery_id"].to_list()):
                doomed.append(self.folder / name)
        for path in doomed:
            path.unlink(missing_ok=True)
        return len(doomed)

    def _last_with_results(self, answer: dict[str, Any]) -> str | None:
        """The delivery of an answer, or the one before it where that one failed; None where there is none."""
        trial = self._read(_file_name("trials", answer["delivery_id"]))
        if trial is not None and trial["status"].to_list() == ["delivered"]:
            return str(answer["delivery_id"])
        return answer.get("previous_delivery_id")

    def _read(self, name: str) -> pl.DataFrame | None:
        """The rows of a file; None when it is missing or torn."""
        try:
            return sealed_frame(name, (self.folder / name).read_bytes())
        except (FileNotFoundError, TornFile):
            return None

    def _write(self, name: str, data: bytes) -> None:
        try:
            with replacing(self.folder / name) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            if is_full(error):
                raise DiskFull(self.folder) from error
            raise


def _file_name(table: str, key: str) -> str:
    """`<table>/<key>.parquet`; raises BadInput for a key that is no plain file name."""
    if not _KEY.fullmatch(key):
        raise BadInput(f"'{key[:80]}' cannot name a file of table {table}: use letters, digits, '_', '.' and '-' only")
    return f"{table}/{key}.parquet"
