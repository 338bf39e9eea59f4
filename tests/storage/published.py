"""What tests of the warehouse ask of a published home."""

from __future__ import annotations

from typing import Any

import duckdb

from storage.home import Home
from storage.lake import Lake
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial


def ask(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home.results), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def contents(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of every raw table, in a fixed order; bookkeeping left out."""
    tables = [name for (name,) in ask(home, "select table_name from duckdb_tables() where schema_name = 'raw'")]
    return {name: sorted(map(repr, ask(home, f"from raw.{name}"))) for name in tables if name not in ("files", "meta")}


def one_trial(home: Home, score: float = 0.5) -> Lake:
    lake = Lake(home.lake)
    deliver_head_scores(lake, "d1", {(0, 0): score})
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    return lake
