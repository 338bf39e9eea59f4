"""What a home's results hold, row for row: every raw table and every mart, without times and names drawn at random."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import duckdb

from storage.home import Home
from storage.lake import Lake

_TIMES = {"answered_at", "delivered_at", "previous_delivered_at", "recorded_at", "merged_at", "seconds"}
_DRAWN = {"mlflow_run_id"}
_BOOKS = {"raw.files", "raw.meta"}
_ROOMS = {"store", "lake", "warehouse", "results.duckdb", "runs", "reports", "mlartifacts"}


def contents(home: Home, *rooms: str) -> dict[str, list[str]]:
    """The rows of each raw table and each mart, or of the rooms that are named, sorted."""
    with duckdb.connect(str(home.results), read_only=True) as connection:
        names = connection.execute(
            "select schema_name || '.' || table_name from duckdb_tables() where schema_name = 'raw' union all "
            "select schema_name || '.' || view_name from duckdb_views() where schema_name = 'mart' order by all"
        ).fetchall()
        wanted = [name for (name,) in names if name not in _BOOKS and name.split(".")[0] in (rooms or ("raw", "mart"))]
        return {name: _rows(connection, name) for name in wanted}


def _rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    columns = [row[0] for row in connection.execute(f"describe {name}").fetchall()]
    kept = ", ".join(f'"{each}"' for each in columns if each not in _TIMES | _DRAWN)
    return sorted(map(repr, connection.execute(f"select {kept} from {name}").fetchall()))


def differences(found: dict[str, list[str]], expected: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """By table that differs: rows that should be there and are not; rows that should not be there, or stand twice."""
    differing = {}
    for name in sorted(found.keys() | expected.keys()):
        here, there = Counter(found.get(name, ())), Counter(expected.get(name, ()))
        if here != there:
            differing[name] = (list((there - here).elements()), list((here - there).elements()))
    return differing


def lost_and_foreign(home: Home, expected: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """The differences between what a home's readers see and what they should see."""
    return differences(contents(home), expected)


def foreign_rows(home: Home, expected: dict[str, list[str]]) -> list[str]:
    """Rows of raw tables that readers see now and an undisturbed run never delivers."""
    if not home.results.exists():
        return []
    found = differences(contents(home, "raw"), expected)
    return [row for name, (_, foreign) in found.items() if name.startswith("raw.") for row in foreign]


def lose_some(home: Home, draw: random.Random) -> None:
    """Remove about half of what stages computed and a third of the lake, so that a run has work everywhere."""
    doomed = [path for path in sorted(home.entries.glob("*")) if draw.random() < 0.5]
    doomed += [home.lake / name for name in Lake(home.lake).files() if draw.random() < 0.3]
    for path in doomed:
        path.unlink()


def files_by_room(home: Home) -> dict[str, list[Path]]:
    """The files of a home, by the room that they lie in; locks and what Prefect keeps are not results."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted(path for path in home.root.rglob("*") if path.is_file()):
        parts = path.relative_to(home.root).parts
        if parts[0] in _ROOMS:
            rooms.setdefault("/".join(parts[:2]) if parts[0] in ("store", "lake") else parts[0], []).append(path)
    return rooms
