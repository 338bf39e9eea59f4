"""Opening DuckDB files for writing, with what goes wrong said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mneme.errors import MnemeError
from storage.disk import full_sentence, is_full

_DENIED = ("Permission denied", "Read-only file system", "read-only mode")
_LATER = ("with version number", "created with a newer version")
CLOSED = {"enable_external_access": "false", "python_enable_replacements": "false"}
# a wrong checksum raises the base class itself
_FILE_ERRORS = (
    duckdb.Error,
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.FatalException,
    duckdb.InternalException,
)


class WarehouseError(MnemeError):
    """The warehouse cannot be used now; nothing is lost."""


class WarehouseBusy(WarehouseError):
    """Another process holds the file open for writing; later it may not."""


class DamagedDatabase(WarehouseError):
    """The file is no database any more; it can be rebuilt."""


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-write connection, closed at the end.

    Raises WarehouseBusy when the file is in use, WarehouseError when it is of a later version, not writable or the
    disk is full, and DamagedDatabase for every other fault of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with database_errors(path), duckdb.connect(str(path)) as connection:
        yield connection


def open_results(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection through which nothing but this file can be reached.

    All readers of one process must open a file with the same settings, or DuckDB refuses the second.
    """
    return duckdb.connect(str(path), read_only=True, config=dict(CLOSED))


def attach_results(path: Path) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, with the file beside it as `results`, read-only; nothing else is in reach."""
    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    connection.execute(f"attach {_quoted(str(path))} as results (read_only)")
    connection.execute("set enable_external_access = false")
    return connection


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors about files into WarehouseError and DamagedDatabase."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if "Could not set lock" in str(error):
            raise WarehouseBusy(_busy_sentence(path, str(error))) from error
        sentence = _sentence(path, error)
        if sentence is not None:
            raise WarehouseError(sentence) from error
        if type(error) in _FILE_ERRORS:
            raise DamagedDatabase(f"{path} is damaged ({str(error).splitlines()[0]})") from error
        raise


def _busy_sentence(path: Path, text: str) -> str:
    holder = re.search(r"PID (\d+)", text)
    who = f"process {holder[1]}" if holder else "another process"
    return f"{path} is open for writing in {who}: close it there (readers open results.duckdb), then run again"


def _sentence(path: Path, error: Exception) -> str | None:
    """What the error means for the user; None when the file itself is damaged."""
    text = str(error)
    if is_full(error):
        return full_sentence(path.parent)
    if any(each in text for each in _DENIED):
        return f"{path} cannot be written: give yourself the right to write there, or set MNEME_HOME to another folder"
    if any(each in text for each in _LATER):
        return f"{path} was written by a later version of DuckDB: update Mneme, or delete the file to rebuild it"
    return None
