"""The SQL of claims: refused before anything is computed, or answered with one number per unit.

A claim reads what `mneme sql` reads, as closed as there, and of that only what the marts say of its study's trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import duckdb

from mneme.errors import BadInput
from storage.duck import CLOSED
from storage.reader import refuse_all_but_reading, sentence_of
from storage.specs import ClaimSpec

_COLUMNS = ["unit_id", "value"]
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_WHOLE, *(f"U{name}" for name in _WHOLE), "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")


def refuse_bad_claims(study: str, claims: Mapping[str, ClaimSpec]) -> None:
    """Raise BadInput, with the study and the claim, for the first select that cannot be asked.

    The selects are bound to empty marts: syntax, views, columns and types are checked, and no results are needed.
    """
    with _empty_marts() as connection:
        for name, claim in claims.items():
            for side, sql in (("found", claim.found), ("control", claim.control)):
                problem = None if sql is None else _problem(connection, sql)
                if problem is not None:
                    raise BadInput(f"study {study}, claim {name}: `{side}` {problem}")


def units_of(marts: duckdb.DuckDBPyConnection, sql: str) -> dict[str, float]:
    """One number per unit; NULL is NaN. `marts` is what `storage.reader.reading_part` gives.

    Raises BadInput for SQL that fails on these rows, a unit without a name, and a unit that comes twice.
    """
    try:
        refuse_all_but_reading(marts, sql)
        asked = _wrapped("cast(unit_id as varchar), cast(value as double)", sql)
        found = marts.execute(f"{asked} order by all").fetchall()
    except duckdb.Error as error:
        raise BadInput(f"fails: {_in_one_line(marts, error)}") from error
    units: dict[str, float] = {}
    for unit, value in found:
        if unit is None or unit in units:
            problem = "a row without a unit_id" if unit is None else f"unit '{unit[:80]}' twice"
            raise BadInput(f"gives {problem}: select one row per unit, each with a unit_id of its own")
        units[unit] = float("nan") if value is None else float(value)
    return units


def _problem(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """Why a select cannot be asked; None when it can."""
    try:
        refuse_all_but_reading(connection, sql)
        described = connection.execute(f"describe {_wrapped('*', sql)}").fetchall()
    except BadInput as error:
        return f"is refused: {error}"
    except duckdb.Error as error:
        return f"cannot be asked: {_in_one_line(connection, error)}"
    types = {str(name): str(kind) for name, kind, *_ in described}
    if sorted(types) != _COLUMNS:
        return f"must give the columns unit_id and value, and gives {', '.join(types)}"
    if not types["value"].startswith(_NUMBERS):
        return f"must give a number as value, and gives {types['value']}"
    return None


def _in_one_line(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """DuckDB's words without the picture of the place, which needs lines of its own."""
    return " ".join(sentence_of(connection, error).split("\nLINE")[0].split())


def _wrapped(columns: str, sql: str) -> str:
    """A select around the claim's own; a comment at its end stays its own."""
    return f"select {columns} from (\n{sql.strip().removesuffix(';')}\n) as asked"  # noqa: S608  one reading statement


@contextmanager
def _empty_marts() -> Iterator[duckdb.DuckDBPyConnection]:
    """The marts as they will be published, without rows and without what lies below them."""
    columns = _mart_columns()
    with duckdb.connect(config=dict(CLOSED)) as connection:
        connection.execute("create schema mart")
        for view, types in columns.items():
            nulls = ", ".join(f'null::{kind} as "{name}"' for name, kind in types.items())
            connection.execute(f"create view mart.{view} as select {nulls} where false")
        connection.execute("set search_path = 'mart'")
        connection.execute("set lock_configuration = true")
        yield connection


@cache  # a study that includes others asks once for each
def _mart_columns() -> dict[str, dict[str, str]]:
    """Names and types of the columns of each mart."""
    from storage.merge import create_raw  # noqa: PLC0415  pandera, which the answering of claims does not need
    from storage.views import build_views, list_views  # noqa: PLC0415

    views = list_views()
    with duckdb.connect() as connection:
        create_raw(connection)
        build_views(connection, views)
        return {
            view.name: {name: kind for name, kind, *_ in connection.execute(f"describe {view.full_name}").fetchall()}
            for view in views
            if view.db_schema == "mart"
        }
