"""The read-only door: one SQL question to the published results, answered as text or as a file.

Imports nothing but DuckDB and the standard library, so that a question is answered in about a second. The connection
can read results.duckdb and nothing else: no file, no network, no setting can be reached through SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mneme.errors import BadInput
from mneme.registry import near_names
from storage.duck import attach_results, open_results
from storage.home import Home
from storage.rendering import FORMATS, quoted, rendered, visible, written, written_parquet

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def query(home: Home, sql: str, format: str = "table", output: Path | None = None) -> str:
    """The answer as text in `format` (table, csv, json; parquet needs an output file); ends with a line break.

    With `output` the answer goes into that file and the text says so. Raises BadInput with one sentence for
    anything but a single reading statement, for SQL that fails, and when nothing has been published yet.
    """
    if format not in FORMATS:
        raise BadInput(f"unknown format {quoted(format, 40)}" + near_names(format[:40], list(FORMATS)))
    if format == "parquet" and output is None:
        raise BadInput("parquet is not for the screen: name a file with -o results.parquet")
    with reading(home) as connection:
        try:
            refuse_all_but_reading(connection, sql)
            if output is None:
                return rendered(connection.execute(sql), format)
            if format == "parquet":
                n_rows = written_parquet(connection.sql(sql), output)
            else:
                n_rows = written(connection.execute(sql), format, output)
            return f"{n_rows} rows in {output}\n"
        except duckdb.Error as error:
            raise BadInput(sentence_of(connection, error)) from error
        except OSError as error:
            raise BadInput(f"cannot write {output} ({error.strerror}): name another file with -o") from error


def views(home: Home, name: str | None = None) -> str:
    """What can be asked: every mart view with its grain and rows, or one view with its columns and units."""
    from storage.describing import describe_all, describe_one  # noqa: PLC0415  yaml and pydantic, not needed by query

    return describe_all(row_counts(home)) if name is None else describe_one(name)


def row_counts(home: Home) -> dict[str, int]:
    """Rows of each mart view; empty when nothing has been published."""
    if not home.results.exists():
        return {}
    with reading(home) as connection:
        names = connection.execute("select view_name from duckdb_views() where schema_name = 'mart'").fetchall()
        counts = {}
        for (view,) in names:
            row = connection.execute(f'select count(*) from mart."{view}"').fetchone()  # noqa: S608  names from the catalog
            counts[str(view)] = 0 if row is None else int(row[0])
        return counts


@contextmanager
def reading(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the published results that can read them and nothing else."""
    with _opened(home, open_results) as connection:
        connection.execute("set search_path = 'mart'")
        connection.execute("set lock_configuration = true")
        yield connection


@contextmanager
def reading_part(home: Home, trial_ids: Iterable[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same, of some trials and trainings: marts with a column `trial_id` show the rows of these alone.

    A home holds trials of other studies, and of the same study with other parameters. Comparisons and phase changes
    name their study and no trial, and are seen whole.
    """
    with _opened(home, attach_results) as connection:
        found = connection.execute(
            "select table_name, bool_or(column_name = 'trial_id') from duckdb_columns()"
            " where database_name = 'results' and schema_name = 'mart' group by all"
        )
        views = found.fetchall()
        connection.execute("create schema mart")
        connection.execute("create table main.asked as select unnest($ids) as trial_id", {"ids": sorted(trial_ids)})
        for name, has_trials in views:
            part = "where trial_id in (select trial_id from memory.main.asked)" if has_trials else ""
            connection.execute(f'create view mart."{name}" as select * from results.mart."{name}" {part}')  # noqa: S608  names from the catalog
        connection.execute("set search_path = 'mart'")
        connection.execute("set lock_configuration = true")
        yield connection


def _opened(home: Home, how: Callable[[Path], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    """The published results, opened; raises BadInput where there are none, or they cannot be."""
    if not home.results.exists():
        raise BadInput(f"there are no results in {home.root} yet: run `mneme run quickstart`, or set MNEME_HOME")
    try:
        return how(home.results)
    except duckdb.Error as error:
        raise BadInput(f"{home.results} cannot be opened: {_first_lines(error)}; run `mneme rebuild`") from error


def refuse_all_but_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise BadInput unless the text is one statement that reads."""
    try:
        statements = connection.extract_statements(sql.encode().decode())
    except UnicodeEncodeError:
        raise BadInput("the SQL holds bytes that are no UTF-8: take them out") from None
    if len(statements) != 1:
        many = f"these are {len(statements)}" if statements else "there is none"
        raise BadInput(f"one SQL statement at a time, please: {many}")
    if statements[0].type not in _READING:
        raise BadInput("results are only read here: use select, with, from, describe, show, summarize or explain")


def sentence_of(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """What is wrong with a statement: DuckDB's own words, or the near names of a view that is not there."""
    return _missing(connection, error) if isinstance(error, duckdb.CatalogException) else _first_lines(error)


def _missing(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """The sentence for a name that is not there, with near names of views."""
    text = str(error).splitlines()[0]
    if "Table with name" not in text:
        return _first_lines(error)
    asked = text.split("Table with name ")[1].split(" does not exist")[0]
    found = connection.execute("select distinct schema_name || '.' || view_name from duckdb_views() where not internal")
    known = [str(row[0]) for row in found.fetchall()]
    marts = [each for each in known if each.startswith("mart.")]
    return f"there is no view {quoted(asked)}" + near_names(f"mart.{asked[:80]}", marts)


def _first_lines(error: duckdb.Error) -> str:
    """DuckDB's own words: the message, near names, and the line with the place marked."""
    return visible("\n".join(line for line in str(error).splitlines() if line.strip())[:600])
