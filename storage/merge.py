"""Bringing the lake into the warehouse's raw tables: new and changed files in, vanished ones out."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import duckdb
import polars as pl

from storage.duck import WarehouseError
from storage.files import sha256_file, stamp_of
from storage.lake import ANSWERS, QUARANTINE, Lake
from storage.layouts import fits
from storage.parquet import LAYOUT, LaterLayout, TornFile, sealed_frame
from storage.parquet import layout_of as layout_of_bytes

_FILES_AT_ONCE = 200
_FILE_COLUMNS = {
    "lake_file": pl.String,
    "table_name": pl.String,
    "sha256": pl.String,
    "n_rows": pl.Int64,
    "stamp": pl.String,
}
_SQL_TYPES: dict[pl.DataType | type[pl.DataType], str] = {
    pl.String(): "varchar",
    pl.Int64(): "bigint",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    pl.Datetime("us", "UTC"): "timestamp",  # in UTC, without a zone: every client shows the same text
}


@dataclass
class Merged:
    """What one merge did: files and rows that came in, files that went, files set aside and why.

    `stamps` are those of files that were read and found as they were merged.
    """

    n_files: int = 0
    n_rows: int = 0
    n_gone: int = 0
    quarantined: list[str] = field(default_factory=list)
    stamps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """A file whose rows are in: its checksum, and its stamp where that may be trusted."""

    sha256: str
    stamp: str | None


def layout_of(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The layout of the raw tables in a warehouse, None when it is empty."""
    found = connection.execute(
        "select count(*) from duckdb_tables() where schema_name = 'raw' and table_name = 'meta'"
    ).fetchone()
    return int(get_meta(connection, "layout") or 0) if found == (1,) else None


def create_raw(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the raw tables, empty, from their pandera tables; `lake_file` says where each row comes from."""
    # pandera takes a second to import, and an existing warehouse does not need it
    from storage.tables import TABLES, column_types  # noqa: PLC0415

    connection.execute("create schema raw")
    connection.execute("create table raw.meta (name varchar primary key, value varchar not null)")
    connection.execute(
        "create table raw.files (lake_file varchar primary key, table_name varchar not null, sha256 varchar not null,"
        " n_rows bigint not null, merged_at timestamp not null, stamp varchar)"
    )
    for table in TABLES:
        columns = [
            f"{name} {_SQL_TYPES[dtype]}{'' if nullable else ' not null'}"
            for name, (dtype, nullable) in column_types(table).items()
        ]
        connection.execute(f"create table raw.{table} ({', '.join(columns)}, lake_file varchar not null)")
    set_meta(connection, "layout", str(LAYOUT))
    set_meta(connection, "tables", _tables_hash())


def has_our_tables(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the raw tables were made by the definitions that stand in this version; else they are made anew."""
    return get_meta(connection, "tables") == _tables_hash()


def _tables_hash() -> str:
    return "".join(sha256_file(Path(__file__).with_name(name)) for name in ("tables.py", "columns.py"))


def get_meta(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """A fact about the warehouse, None when it is not there."""
    row = connection.execute("select value from raw.meta where name = ?", [name]).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: duckdb.DuckDBPyConnection, name: str, value: str) -> None:
    """Record a fact about the warehouse."""
    connection.execute("insert or replace into raw.meta values (?, ?)", [name, value])


def new_generation(connection: duckdb.DuckDBPyConnection) -> None:
    """Mark the contents as changed: a published copy of another generation is out of date."""
    set_meta(connection, "generation", uuid.uuid4().hex)


def merge(connection: duckdb.DuckDBPyConnection, lake: Lake, *, recheck: bool = False) -> Merged:
    """Make the raw tables equal to the lake, inside the caller's transaction; damaged files are set aside.

    A file whose stamp is the one that it was merged with is not read; `recheck` reads every file and compares its
    checksum. Raises WarehouseError for a lake file of a later version of Mneme.
    """
    merged = Merged()
    connection.execute("alter table raw.files add column if not exists stamp varchar")  # a warehouse from before stamps
    found = connection.execute("select lake_file, sha256, stamp from raw.files").fetchall()
    known = {name: _Known(sha256, None if recheck else stamp) for name, sha256, stamp in found}
    # A trial's rows are delivered before its answer: read the answers, and only then look for rows.
    _merge_changed(connection, lake, lake.files(ANSWERS), known, merged)
    others = [name for name in lake.files() if not name.startswith(f"{ANSWERS}/")]
    _merge_changed(connection, lake, others, known, merged)
    gone = sorted(set(known) - set(lake.files()))
    _drop_rows(connection, gone)
    merged.n_gone = len(gone)
    _remember(connection, merged.stamps)
    if merged.n_files or merged.n_gone:
        new_generation(connection)
    return merged


def _merge_changed(
    connection: duckdb.DuckDBPyConnection, lake: Lake, names: list[str], known: dict[str, _Known], merged: Merged
) -> None:
    changed = [name for name in names if not (name in known and _is_as_merged(lake, name, known[name], merged))]
    for start in range(0, len(changed), _FILES_AT_ONCE):
        _merge_files(connection, lake, changed[start : start + _FILES_AT_ONCE], merged)


def _is_as_merged(lake: Lake, name: str, known: _Known, merged: Merged) -> bool:
    path = lake.folder / name
    try:
        stamp = stamp_of(path)  # before its bytes: what changes while they are read changes the stamp
        if stamp is not None and stamp == known.stamp:
            return True
        if sha256_file(path) != known.sha256:
            return False
    except FileNotFoundError:
        return True  # it went meanwhile: its rows go below
    if stamp is not None:
        merged.stamps[name] = stamp
    return True


def _merge_files(connection: duckdb.DuckDBPyConnection, lake: Lake, names: list[str], merged: Merged) -> None:
    """Replace the rows of some files by what is in them now."""
    columns = _columns(connection)
    frames: dict[str, list[pl.DataFrame]] = defaultdict(list)
    facts: list[tuple[str, str, str, int, str | None]] = []
    for name in names:
        table = name.split("/")[0]
        try:
            stamp = stamp_of(lake.folder / name)
            data = (lake.folder / name).read_bytes()
            frame = sealed_frame(name, data)
        except FileNotFoundError:
            continue
        except LaterLayout:
            raise later_file(lake, name) from None
        except TornFile:
            frame = None
        if frame is None or not fits(table, layout_of_bytes(data), frame.columns, columns.get(table, ())):
            merged.quarantined.append(_set_aside(lake, name))
            continue
        frames[table].append(frame.with_columns(pl.lit(name).alias("lake_file")))
        facts.append((name, table, sha256(data).hexdigest(), len(frame), stamp))
    _drop_rows(connection, [name for name, *_ in facts])
    for table, parts in frames.items():
        _insert(connection, table, pl.concat(parts, how="diagonal"))
    if facts:
        now = pl.lit(datetime.now(UTC)).alias("merged_at")
        rows = pl.DataFrame(facts, schema=_FILE_COLUMNS, orient="row")
        _insert(connection, "files", rows.with_columns(now))
    merged.n_files += len(facts)
    merged.n_rows += sum(n_rows for _, _, _, n_rows, _ in facts)


def _remember(connection: duckdb.DuckDBPyConnection, stamps: dict[str, str]) -> None:
    """Note the stamps of files that are as they were merged, so that they need not be read the next time."""
    if stamps:
        connection.register("seen", pl.DataFrame({"lake_file": [*stamps], "stamp": [*stamps.values()]}))
        connection.execute(
            "update raw.files set stamp = s.stamp from seen as s where raw.files.lake_file = s.lake_file"
        )
        connection.unregister("seen")


def later_file(lake: Lake, name: str) -> WarehouseError:
    """What to say of a lake file whose layout this version does not know."""
    return WarehouseError(
        f"{lake.folder / name} was written by a later version of Mneme: update Mneme, or use another MNEME_HOME"
    )


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, set[str]]:
    """Each raw table's columns; `lake_file` is ours."""
    columns: dict[str, set[str]] = defaultdict(set)
    for table, column in connection.execute(
        "select table_name, column_name from duckdb_columns() where schema_name = 'raw' and column_name != 'lake_file'"
    ).fetchall():
        columns[table].add(column)
    return columns


def _drop_rows(connection: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Remove the rows of files, and the files, from the raw tables."""
    known = connection.execute(
        "select distinct table_name from raw.files where list_contains(?::varchar[], lake_file)", [names]
    ).fetchall()
    for table in [*(row[0] for row in known), "files"]:
        connection.execute(f"delete from raw.{table} where list_contains(?::varchar[], lake_file)", [names])  # noqa: S608  our own table names


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    times = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Datetime)]
    rows = rows.with_columns(pl.col(times).dt.replace_time_zone(None))  # DuckDB would convert to local time
    connection.register("merged_rows", rows)
    connection.execute(f"insert into raw.{table} by name select * from merged_rows")  # noqa: S608  our own table names
    connection.unregister("merged_rows")


def _set_aside(lake: Lake, name: str) -> str:
    """Move a damaged file out of the way; returns the warning."""
    target = lake.folder / QUARANTINE / name.replace("/", "--")
    target.parent.mkdir(exist_ok=True)
    (lake.folder / name).replace(target)
    return f"lake file {name} is damaged or fits no table; it was moved to {target}: run its study again"
