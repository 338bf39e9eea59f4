"""`mneme show`, `mneme list`, `mneme report`, `mneme doctor`: look, change nothing but a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import console, table
from mneme.errors import BadInput
from mneme.registry import near_names
from storage.home import find_home
from storage.rendering import quoted, visible

KINDS = ("models", "promptsets", "probes", "studies")


def show(trial: Annotated[str, typer.Argument(help="A trial id, or the start of one")]) -> None:
    """Everything about one trial: spec, provenance, timings, files, rows."""
    from storage.dossier import dossier

    typer.echo(dossier(find_home(), trial), nl=False)


def list_members(kind: Annotated[str, typer.Argument(help="models, promptsets, probes or studies")]) -> None:
    """What is configured, with the first sentence of its description."""
    from storage.config_files import config_names, config_path, read_yaml

    if kind not in KINDS:
        raise BadInput(f"nothing is listed under {quoted(kind, 40)}{near_names(kind, list(KINDS))}")
    shown = table("name", "file", "description")
    for name in config_names(kind):  # type: ignore[arg-type]
        path = config_path(kind, name)  # type: ignore[arg-type]
        text = " ".join(str(read_yaml(path).get("description", "")).split())
        shown.add_row(name, _short(path), visible(text.split(". ")[0]))
    console().print(shown)


def report(
    study: Annotated[str | None, typer.Argument(help="A study; the one answered last when left out")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes")] = Path("report.html"),
) -> None:
    """Write the page of a study: one self-contained HTML file."""
    from storage.report.page import write_report
    from storage.rows import rows

    home = find_home()
    answered = [str(each["study"]) for each in rows(home, "select study from raw.answers order by answered_at desc")]
    if not answered:
        raise BadInput("there are no results yet: run `mneme run quickstart` first")
    if study is not None and study not in answered:
        raise BadInput(f"study {quoted(study)} has no results{near_names(study[:80], sorted(set(answered)))}")
    typer.echo(str(write_report(home, study or answered[0], output)))


def doctor() -> None:
    """Check the installation and the home, and say what to do."""
    from storage.health import examine
    from storage.redacting import redacted

    findings = examine(find_home())
    shown = table("", "check", "finding")
    for each in findings:
        shown.add_row("ok" if each.is_fine else "!!", each.check, visible(redacted(each.finding)))
    console().print(shown)
    if not all(each.is_fine for each in findings):
        raise typer.Exit(1)


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
