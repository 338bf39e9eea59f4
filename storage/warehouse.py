"""The warehouse: the lake merged into one DuckDB file, its views and promises, and the copy that readers open."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from storage.duck import DamagedDatabase, WarehouseBusy, WarehouseError, database_errors, open_results, opened
from storage.files import replacing, sweep_temporaries
from storage.home import Home
from storage.lake import Lake
from storage.locks import LockBusy, file_lock
from storage.merge import (
    Merged,
    create_raw,
    get_meta,
    has_our_tables,
    later_file,
    layout_of,
    merge,
    new_generation,
    set_meta,
)
from storage.parquet import LAYOUT, layout_of_file
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


def publish(home: Home, *, recheck: bool = False) -> Published:
    """Bring everything delivered so far before the readers.

    Under a lock: merges the lake in one transaction, rebuilds the views, checks their promises, and replaces
    results.duckdb when it is out of date. `recheck` trusts nothing: it reads every lake file, builds the views and
    checks the promises even where nothing is new. Raises WarehouseError with one sentence; whatever happens, readers
    keep the last published copy.
    """
    started = time.monotonic()
    with file_lock(home.locks / "warehouse.lock"):
        sweep_temporaries(home.lake)
        warnings = []
        try:
            merged, promises, is_copied = _merge_and_copy(home, recheck)
        except DamagedDatabase:
            warnings.append(f"{home.warehouse} was damaged: it is rebuilt from the lake")
            _remove(home.warehouse)
            merged, promises, is_copied = _merge_and_copy(home, recheck)
    return Published(
        n_files_merged=merged.n_files,
        n_rows=merged.n_rows,
        promises_broken=tuple(promises),
        warnings=(*warnings, *merged.quarantined),
        is_copied=is_copied,
        seconds=time.monotonic() - started,
    )


def rebuild(home: Home) -> Published:
    """Make the warehouse anew from the lake, then publish it; readers keep the old copy until then.

    Raises WarehouseError, with the warehouse as it was, for a lake file of a later version of Mneme.
    """
    _refuse_later_files(Lake(home.lake), set())
    with file_lock(home.locks / "warehouse.lock"):
        _remove(home.warehouse)
    return publish(home)


def refuse_later(home: Home) -> None:
    """Raise WarehouseError when a later version of Mneme has written into the home: asked before anything is computed.

    Looks at the published copy, at the warehouse unless somebody publishes now, and at lake files that neither holds.
    What cannot be read is left to `publish`, which says so or mends it.
    """
    merged = _merged_into(home.results)
    if home.warehouse.is_file():
        with suppress(LockBusy), file_lock(home.locks / "warehouse.lock", timeout_seconds=0):
            merged |= _merged_into(home.warehouse)
    _refuse_later_files(Lake(home.lake), merged)


def _merged_into(database: Path) -> set[str]:
    """The lake files whose rows a database holds; raises WarehouseError when a later version has written it."""
    if not database.is_file():
        return set()
    try:
        with database_errors(database), open_results(database) as connection:
            layout = layout_of(connection)
            _refuse_later_layout(database, layout)
            if layout is None:
                return set()
            return {str(name) for (name,) in connection.execute("select lake_file from raw.files").fetchall()}
    except (WarehouseBusy, DamagedDatabase, duckdb.Error):
        return set()


def _refuse_later_files(lake: Lake, merged: set[str]) -> None:
    for name in lake.files():
        if name not in merged and (layout_of_file(lake.folder / name) or 0) > LAYOUT:
            raise later_file(lake, name)


def _merge_and_copy(home: Home, recheck: bool) -> tuple[Merged, list[str], bool]:
    """Bring warehouse and copy up to the lake; returns what came in, the broken promises, whether it was copied."""
    home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    _refuse_or_drop_other_layouts(home.warehouse)
    with opened(home.warehouse) as connection:
        connection.execute("begin")
        if layout_of(connection) is None:
            create_raw(connection)
            new_generation(connection)
        merged = merge(connection, Lake(home.lake), recheck=recheck)
        _refresh_views(connection, recheck)
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
    _refuse_later_layout(warehouse, layout)
    if layout is not None and not is_ours:
        _remove(warehouse)


def _refuse_later_layout(database: Path, layout: int | None) -> None:
    if layout is not None and layout > LAYOUT:
        raise WarehouseError(
            f"{database} was written by a later version of Mneme (layout {layout}, this one knows {LAYOUT}):"
            " update Mneme, or use another MNEME_HOME"
        )


def _refresh_views(connection: duckdb.DuckDBPyConnection, anew: bool) -> None:
    views = list_views()
    if anew or get_meta(connection, "views") != fingerprint(views):
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
