"""Published results as plain Python rows, for our own commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from mneme.errors import BadInput
from storage.home import Home
from storage.reader import reading
from storage.rendering import quoted


def rows(home: Home, statement: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Rows of one of our own queries on `results.duckdb`; none when nothing is published yet.

    Raises BadInput when the file is damaged, or was published by another version.
    """
    if not home.results.is_file():
        return []
    with reading(home) as connection:
        try:
            answer = connection.execute(statement, list(parameters))
            names = [each[0] for each in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            problem = str(error).splitlines()[0]
            raise BadInput(f"{home.results} does not answer ({problem}): run `mneme rebuild`") from error


def trial_starting_with(home: Home, start: str) -> str:
    """The id of the trial that starts with `start`, history included; raises BadInput unless exactly one does."""
    found = rows(home, "select distinct trial_id from raw.trials where starts_with(trial_id, ?)", [start])
    if len(found) != 1:
        many = "no trial has" if not found else f"{len(found)} trials have"
        raise BadInput(f"{many} an id that starts with {quoted(start, 40)}: look the id up in mart.trials")
    return str(found[0]["trial_id"])
