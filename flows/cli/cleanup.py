"""`mneme gc`, `mneme forget`, `mneme rebuild`: what the home holds, and how to let go of it."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import console, table
from flows.troubles import PromisesBroken
from mneme.errors import BadInput
from storage.home import Home, writable_home
from storage.rendering import quoted

_MIB = 2**20


def gc(
    free: Annotated[
        str, typer.Option("--free", help="What goes, by comma: unused, unfinished, or a stage (trace, measure, ...)")
    ] = "",
) -> None:
    """Say what the store holds and for what; with --free, remove it. Numbers in the lake always stay."""
    from storage.cleaning import UNFINISHED, free_stage, free_unfinished, free_unused, held, sweep

    home = writable_home()
    stages = [each.strip() for each in free.split(",") if each.strip()]
    known = {each.stage for each in held(home)} | {"unused"}
    for each in stages:
        if each not in known:
            raise BadInput(
                f"--free {quoted(each, 40)} names nothing in the store; there is: {', '.join(sorted(known))}"
            )
    special = {"unused": free_unused, UNFINISHED: free_unfinished}
    freed = sum(special[each](home) if each in special else free_stage(home, each) for each in stages)
    sweep(home)
    _print(home)
    if stages:
        typer.echo(f"freed {freed / _MIB:.1f} MiB; what is needed again will be computed again")


def forget(trial: Annotated[str, typer.Argument(help="A trial id, or the start of one")]) -> None:
    """Remove a trial's rows, history included, and its items; traces and models stay."""
    from storage.cleaning import forget_trial
    from storage.warehouse import publish, refuse_later

    home = writable_home()
    refuse_later(home)
    found = forget_trial(home, trial)
    publish(home)
    typer.echo(f"forgot {found.label} ({found.trial_id}): {found.n_files} lake files")


def rebuild() -> None:
    """Make the warehouse anew from the lake and publish it."""
    from storage.warehouse import rebuild as rebuilt

    published = rebuilt(writable_home())
    typer.echo(f"{published.n_files_merged} lake files, {published.n_rows} rows, {published.seconds:.1f} s")
    for sentence in (*published.warnings, *published.promises_broken):
        typer.echo(sentence, err=True)
    if published.promises_broken:
        raise typer.Exit(PromisesBroken.exit_code)


def _print(home: Home) -> None:
    from storage.cleaning import held

    shown = table("stage", "entries", "objects", "MiB", "holds", title=f"store of {home.root}")
    for each in held(home):
        shown.add_row(each.stage, str(each.n_entries), str(each.n_objects), f"{each.n_bytes / _MIB:.2f}", each.purpose)
    console().print(shown)
