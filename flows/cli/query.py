"""`mneme sql` and `mneme views`: read-only, without torch, prefect or mlflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from storage.home import find_home


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over mart.*, stg.* or raw.*")],
    format: Annotated[str, typer.Option("--format", "-f", help="table, csv, json or parquet")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file")] = None,
) -> None:
    """Ask the published results in SQL; nothing can be written and no file but the results can be read."""
    from storage.reader import query

    typer.echo(query(find_home(), statement, format, output), nl=False)


def views(name: Annotated[str | None, typer.Argument(help="One view")] = None) -> None:
    """What can be asked: each view, its grain, columns and units."""
    from storage.reader import views as described

    typer.echo(described(find_home(), name), nl=False)
