"""The warehouse: the lake merged into one DuckDB file, its views and promises, and the copy that readers open."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

from storage.duck import DamagedDatabase, WarehouseError, database_errors, open_results, opened
from storage.files import replacing, sweep_temporaries
from storage.home import Home
from storage.lake import Lake
from storage.locks import file_lock
from storage.merge import Merged, create_raw, get_meta, has_our_tables, layout_of, merge, new_generation, set_meta
from storage.parquet import LAYOUT
from storage.views import broken_promises, build_views, fingerprint, list_views

COPY_VERSION = "v1.2.0"  # DuckDB 1.2 and all later ones read the published copy


@dataclass(frozen=True)
class Published:
    """What one publish did; `promises_broken` and `warnings` are sentences for the user."""

    n_files_merged: int
    n_rows: int
    promises_broken: tuple[str, ...]
    warnings: tuple[str, ...]
    is_copied: bool
    seconds: float


def publish(home: Home) -> Published:
    """Bring everything delivered so far before the readers.

    Under a lock: merges the lake in one transaction, rebuilds the views, checks their promises, and replaces
    results.duckdb when it is out of date. Raises WarehouseError with one sentence; whatever happens, readers keep the
    last published copy.
    """
    started = time.monotonic()
    with file_lock(home.locks / "warehouse.lock"):
        sweep_temporaries(home.lake)
        warnings = []
        try:
            merged, promises, is_copied = _merge_and_copy(home)
        except DamagedDatabase:
            warnings.append(f"{home.warehouse} was damaged: it is rebuilt from the lake")
            _remove(home.warehouse)
            merged, promises, is_copied = _merge_and_copy(home)
    return Published(
        n_files_merged=merged.n_files,
        n_rows=merged.n_rows,
        promises_broken=tuple(promises),
        warnings=(*warnings, *merged.quarantined),
        is_copied=is_copied,
        seconds=time.monotonic() - started,
    )


def rebuild(home: Home) -> Published:
    """Make the warehouse anew from the lake, then publish it; readers keep the old copy until then."""
    with file_lock(home.locks / "warehouse.lock"):
        _remove(home.warehouse)
    return publish(home)


def _merge_and_copy(home: Home) -> tuple[Merged, list[str], bool]:
    """Bring warehouse and copy up to the lake; returns what came in, the broken promises, whether it was copied."""
    home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    _refuse_or_drop_other_layouts(home.warehouse)
    with opened(home.warehouse) as connection:
        connection.execute("begin")
        if layout_of(connection) is None:
            create_raw(connection)
            new_generation(connection)
        merged = merge(connection, Lake(home.lake))
        _refresh_views(connection)
        promises = _check_promises(connection)
        generation = get_meta(connection, "generation")
        connection.execute("commit")
        connection.execute("checkpoint")
    is_copied = generation != _generation_of(home.results)
    if is_copied:
        _copy(home)
    return merged, promises, is_copied


def _refuse_or_drop_other_layouts(warehouse: Path) -> None:
    """An older layout, or other columns, are rebuilt from the lake; a later layout is somebody else's."""
    if not warehouse.exists():
        return
    with opened(warehouse) as connection:
        layout = layout_of(connection)
        is_ours = layout == LAYOUT and has_our_tables(connection)
    if layout is not None and layout > LAYOUT:
        raise WarehouseError(
            f"{warehouse} was written by a later version of Mneme (layout {layout}, this one knows {LAYOUT}):"
            " update Mneme, or use another MNEME_HOME"
        )
    if layout is not None and not is_ours:
        _remove(warehouse)


def _refresh_views(connection: duckdb.DuckDBPyConnection) -> None:
    views = list_views()
    if get_meta(connection, "views") != fingerprint(views):
        build_views(connection, views)
        set_meta(connection, "views", fingerprint(views))
        new_generation(connection)


def _check_promises(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The broken promises of this generation, found once and kept in raw.meta."""
    generation = get_meta(connection, "generation")
    known = json.loads(get_meta(connection, "broken_promises") or "{}")
    if known.get("generation") != generation:
        known = {"generation": generation, "sentences": broken_promises(connection)}
        set_meta(connection, "broken_promises", json.dumps(known))
    return list(known["sentences"])


def _generation_of(results: Path) -> str | None:
    """Which generation a published copy holds; None when it is missing or unreadable."""
    try:
        with open_results(results) as connection:
            return get_meta(connection, "generation")
    except duckdb.Error:
        return None


def _copy(home: Home) -> None:
    """Replace results.duckdb by a copy of the warehouse that older DuckDB clients open too."""
    for left_behind in home.root.glob(f".{home.results.name}.*"):
        left_behind.unlink()  # by a killed publisher: we hold the lock
    with replacing(home.results) as temporary, database_errors(home.warehouse), duckdb.connect() as connection:
        connection.execute(f"attach {_literal(home.warehouse)} as warehouse (read_only)")
        connection.execute(f"attach {_literal(temporary)} as copy (storage_version '{COPY_VERSION}')")
        connection.execute("copy from database warehouse to copy")
        connection.execute("detach copy")


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _remove(warehouse: Path) -> None:
    for path in (warehouse, warehouse.with_name(f"{warehouse.name}.wal")):
        path.unlink(missing_ok=True)
