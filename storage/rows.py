"""Published results as plain Python rows, for our own commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.duck import open_results
from storage.home import Home


def rows(home: Home, statement: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Rows of one of our own queries on `results.duckdb`; none when nothing is published yet."""
    if not home.results.is_file():
        return []
    with open_results(home.results) as connection:
        answer = connection.execute(statement, list(parameters))
        names = [each[0] for each in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
