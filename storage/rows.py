"""Published results as plain Python rows, for our own commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from mneme.errors import BadInput
from storage.home import Home
from storage.reader import reading


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
