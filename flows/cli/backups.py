"""`mneme backup` and `mneme restore`: one file that holds what a home cannot easily compute again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import console
from storage.home import Home, find_home

if TYPE_CHECKING:
    from mneme.progress import Progress

_MIB = 2**20


def backup(
    target: Annotated[Path, typer.Argument(help="A new file, or a folder for one named after the time")],
) -> None:
    """Copy lake, store and MLflow into one tar file, with a checksum for each file; studies may run meanwhile."""
    from storage.backup import back_up

    with _bar("back up") as progress:
        done = back_up(find_home(), target, progress)
    typer.echo(f"{done.path}: {done.n_files} files, {done.n_bytes / _MIB:.1f} MiB")


def restore(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A backup, or a folder: its newest backup")],
    home: Annotated[Path | None, typer.Option("--home", help="Where to; MNEME_HOME when left out")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a home that is there, which is kept beside it")
    ] = False,
) -> None:
    """Make a home from a backup: check every file, make the warehouse anew, then put all in place at once."""
    from storage.restoring import restore as restored_from

    place = find_home() if home is None else Home(home.expanduser().absolute())
    with _bar("restore") as progress:
        done = restored_from(source, place, replace=replace, progress=progress)
    published = done.published
    typer.echo(f"{place.root}: {done.n_files} files of {done.source}, {published.n_rows} rows published")
    if done.kept_aside is not None:
        typer.echo(f"what was there before lies in {done.kept_aside}")
    for sentence in (*published.warnings, *published.promises_broken):
        typer.echo(sentence, err=True)
    if published.promises_broken:
        raise typer.Exit(1)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """A bar of bytes on stderr; nothing where there is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description} {task.fields[room]}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        task = bars.add_task(label, total=None, room="")

        def advance(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, room=note)

        yield advance
