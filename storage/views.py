"""The views of the warehouse: SQL files their promises beside them, built in the order of their references."""

from __future__ import annotations

import re
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mneme.errors import BadInput

if TYPE_CHECKING:
    import duckdb

SQL = Path(__file__).parent / "sql"
Schema = Literal["stg", "mart"]
_REFERENCE = re.compile(r"\b(raw|stg|mart)\.([a-z_]+)")
_COMMENT_OR_STRING = re.compile(r"--[^\n]*|'(?:[^']|'')*'")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Strict):
    """A column of a view: what it says and in which unit."""

    name: str
    text: str
    unit: str | None = None


class Range(_Strict):
    """Closed bounds of a column."""

    column: str
    low: float | None = None
    high: float | None = None


class Check(_Strict):
    """One promise; exactly one of the kinds is given."""

    not_null: tuple[str, ...] | None = None
    unique: tuple[str, ...] | None = None
    range: Range | None = None
    promise: str | None = None
    broken_by: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Check:
        given = [self.not_null, self.unique, self.range, self.promise]
        if sum(each is not None for each in given) != 1 or (self.promise is None) != (self.broken_by is None):
            raise ValueError("a check is one of not_null, unique, range, or promise with broken_by")
        return self


class View(_Strict):
    """A view: its SQL and what its yaml says about it."""

    db_schema: Schema
    name: str
    sql: str
    description: str
    grain: str
    columns: tuple[Column, ...]
    checks: tuple[Check, ...] = ()

    @property
    def full_name(self) -> str:
        """`mart.head_ranking`."""
        return f"{self.db_schema}.{self.name}"

    @property
    def references(self) -> set[str]:
        """Full names of the tables and views that the SQL reads."""
        return {".".join(each) for each in _REFERENCE.findall(_COMMENT_OR_STRING.sub("", self.sql))}


def list_views(folder: Path = SQL) -> list[View]:
    """Every view, each after those it refers to; raises BadInput for a cycle, a stray file or a broken yaml."""
    return list(_list_views(folder))


@lru_cache(maxsize=8)
def _list_views(folder: Path) -> tuple[View, ...]:
    views = {view.full_name: view for view in map(_read, sorted(folder.glob("*/*.sql")))}
    for path in folder.glob("*/*.yaml"):
        if not path.with_suffix(".sql").exists():
            raise BadInput(f"{path} describes no view: write {path.stem}.sql beside it")
    before = {name: {each for each in view.references if not each.startswith("raw.")} for name, view in views.items()}
    for name, references in before.items():
        if unknown := references - views.keys():
            raise BadInput(f"view {name} refers to {', '.join(sorted(unknown))}, which is no view")
    try:
        order = TopologicalSorter({name: sorted(references) for name, references in before.items()}).static_order()
        return tuple(views[name] for name in order)
    except CycleError as error:
        raise BadInput(f"views refer to each other in a circle: {' -> '.join(error.args[1])}") from None


def _read(path: Path) -> View:
    sql = path.read_text(encoding="utf-8").strip()
    try:
        facts: dict[str, Any] = yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8"))
        return View(db_schema=path.parent.name, name=path.stem, sql=sql, **facts)
    except FileNotFoundError:
        raise BadInput(f"view {path} has no description: write {path.stem}.yaml beside it") from None
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise BadInput(f"{path.with_suffix('.yaml')}: {str(error).splitlines()[0]}") from None


def fingerprint(views: list[View]) -> str:
    """Changes when any view's SQL or description does."""
    return sha256("\n".join(view.model_dump_json() for view in views).encode()).hexdigest()


def build_views(connection: duckdb.DuckDBPyConnection, views: list[View]) -> None:
    """Make the views, with their descriptions as comments, in place of all that are there."""
    for schema in ("mart", "stg"):
        connection.execute(f"drop schema if exists {schema} cascade")
    for schema in ("stg", "mart"):
        connection.execute(f"create schema {schema}")
    for view in views:
        connection.execute(f"create view {view.full_name} as {view.sql}")
        connection.execute(f"comment on view {view.full_name} is {_quoted(f'{view.description} Grain: {view.grain}.')}")
        for column in view.columns:
            text = column.text if column.unit is None else f"{column.text} [{column.unit}]"
            connection.execute(f"comment on column {view.full_name}.{column.name} is {_quoted(text)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def broken_promises(connection: duckdb.DuckDBPyConnection, views: list[View] | None = None) -> list[str]:
    """One sentence for each promise of a view that its rows break now."""
    found = []
    for view in list_views() if views is None else views:
        counts = [*_counts_of_rows(connection, view), *_counts_of_queries(connection, view)]
        found += [
            f"{view.full_name}: {promise} is broken by {count} row{'s' if count > 1 else ''}"
            for promise, count in counts
            if count
        ]
    return found


def _counts_of_rows(connection: duckdb.DuckDBPyConnection, view: View) -> list[tuple[str, int]]:
    """How many rows break each promise about single columns, all in one pass over the view."""
    faults = {f"{name} is never NULL": f"{name} is null" for check in view.checks for name in check.not_null or ()}
    for bounds in (check.range for check in view.checks if check.range):
        if bounds.low is not None:
            faults[f"{bounds.column} >= {bounds.low:g}"] = f"{bounds.column} < {bounds.low}"
        if bounds.high is not None:
            faults[f"{bounds.column} <= {bounds.high:g}"] = f"{bounds.column} > {bounds.high}"
    if not faults:
        return []
    counted = ", ".join(f"count(*) filter (where {fault})" for fault in faults.values())
    row = connection.execute(f"select {counted} from {view.full_name}").fetchone()  # noqa: S608  text from our own files
    return list(zip(faults, row or (), strict=True))


def _counts_of_queries(connection: duckdb.DuckDBPyConnection, view: View) -> list[tuple[str, int]]:
    """How many rows the queries return that look for doubled keys and for broken promises of their own."""
    queries = []
    for check in view.checks:
        if check.unique:
            key = ", ".join(check.unique)
            doubled = f"select 1 from {view.full_name} group by {key} having count(*) > 1"  # noqa: S608  our own files
            queries.append((f"one row per {key}", doubled))
        if check.promise and check.broken_by:
            queries.append((check.promise, check.broken_by))
    return [(promise, len(connection.execute(query).fetchall())) for promise, query in queries]
