"""MLflow's database, copied while others write it, cleaned of secrets, and told where it lies now; SQL, not MLflow."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from mneme.errors import BadInput
from storage.home import Home

_SECRET = ("secrets", "webhooks", "webhook_events", "jobs")  # what a user may have typed into MLflow's pages
_ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy by sqlite's online backup, without the tables that hold secrets.

    Raises BadInput when the file is damaged or no database.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            (found,) = copy.execute("pragma quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            _drop_secrets(copy)
    except sqlite3.Error as error:
        raise BadInput(
            f"{source} cannot be copied ({error}): close what holds it, or move it away if it is damaged"
        ) from error


def settle(database: Path, before: str, home: Home, made_at_ms: int) -> None:
    """Tell a restored database that its home, once at `before`, is `home` now; runs that were open then are KILLED.

    Raises BadInput for a database that sqlite cannot use.
    """
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            _move(connection, Home(Path(before)), home)
            if _has(connection, "runs"):
                open_then = "status in ('RUNNING', 'SCHEDULED')"
                connection.execute(f"update runs set status = 'KILLED', end_time = ? where {open_then}", [made_at_ms])  # noqa: S608  our own words
    except sqlite3.Error as error:
        raise BadInput(f"the backup's {database.name} is damaged ({error}): take another backup") from error


def _move(connection: sqlite3.Connection, old: Home, new: Home) -> None:
    """Every address of a file below the old home becomes one below the new."""
    artifacts = [f"{each.mlflow_artifacts.as_uri()}/" for each in (old, new)]
    for table, column in _ADDRESSES:
        if _has(connection, table):
            connection.execute(
                f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",  # noqa: S608  our own names
                [artifacts[1], len(artifacts[0]) + 1, len(artifacts[0]), artifacts[0]],
            )
    if _has(connection, "datasets"):
        stores = [json.dumps(f"{each.store}/")[1:-1] for each in (old, new)]
        connection.execute("update datasets set dataset_source = replace(dataset_source, ?, ?)", stores)


def _drop_secrets(copy: sqlite3.Connection) -> None:
    """Empty the tables that may hold secrets; what was deleted leaves the file too."""
    with copy:
        removed = sum(
            copy.execute(f"delete from {table}").rowcount  # noqa: S608  our own names
            for table in _SECRET
            if _has(copy, table)
        )
    if removed:
        copy.execute("vacuum")


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("select count(*) from sqlite_master where type = 'table' and name = ?", [table])
    return bool(found.fetchone() == (1,))
