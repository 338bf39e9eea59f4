"""The `mneme` command: one small module per subcommand, each importing only what it needs."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import typer

from flows.cli import backups, cleanup, look, query, run
from flows.ending import terminable
from flows.troubles import RunTroubled
from mneme.errors import MnemeError
from storage.disk import full_sentence, is_full
from storage.home import find_home
from storage.redacting import redacted
from storage.rendering import quoted, visible

app = typer.Typer(
    name="mneme",
    help="How language models retrieve from their context, and which heads do it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("sql")(query.sql)
app.command("views")(query.views)
app.command("show")(look.show)
app.command("list")(look.list_members)
app.command("report")(look.report)
app.command("gc")(cleanup.gc)
app.command("forget")(cleanup.forget)
app.command("rebuild")(cleanup.rebuild)
app.command("doctor")(look.doctor)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)

_INTERRUPTED = 130
_TERMINATED = 143
_ENDINGS = ("Terminated", "TerminationSignal")  # ours, and Prefect's without importing it
_UNREACHED = ("Failed to reach API at", "ephemeral Prefect API server")  # how Prefect says it


def main() -> None:
    """Entry point: an error that a user is meant to read is one sentence on stderr and exit code 1.

    A study whose numbers moved leaves with 3, broken promises of the warehouse with 4, Ctrl-C with 130, SIGTERM with
    143.
    """
    try:
        with terminable():
            app()
    except SystemExit as leaving:
        if leaving.code == _INTERRUPTED:  # typer's word for Ctrl-C
            _say("interrupted; what was computed is kept, run the same command again to go on", _INTERRUPTED)
        raise
    except RunTroubled as trouble:
        _say(str(trouble), trouble.exit_code)
    except MnemeError as error:
        _say(str(error), 1)
    except BaseException as error:
        _explain(error)


def _explain(error: BaseException) -> NoReturn:
    if _is_terminated(error):
        _say("ended by SIGTERM; what was computed is kept, run the same command again to go on", _TERMINATED)
    if not isinstance(error, Exception):
        raise error
    if is_full(error):
        _say(full_sentence(find_home().root), 1)
    if any(text in str(error) for text in _UNREACHED):
        _say(f"Prefect's server does not answer ({error}): start it, or unset PREFECT_API_URL", 1)
    if not isinstance(error, OSError):
        _say(f"this is an error in Mneme itself, please report it\n{traceback.format_exc()}", 1)
    _say(_system_sentence(error), 1)


def _say(sentence: str, code: int) -> NoReturn:
    text = visible(redacted(f"mneme: {sentence}"))
    print(text.encode(errors="backslashreplace").decode(), file=sys.stderr)  # noqa: T201  the command's own voice
    sys.exit(code)


def _is_terminated(error: BaseException) -> bool:
    """Whether SIGTERM is behind an error: a server of Prefect's that was ended as well is missed on the way out."""
    behind: BaseException | None = error
    while behind is not None and type(behind).__name__ not in _ENDINGS:
        behind = behind.__cause__ or behind.__context__
    return behind is not None


def _system_sentence(error: OSError) -> str:
    where = f" ({quoted(str(error.filename), 300)})" if error.filename else ""
    return f"{error.strerror or error}{where}; what was computed is kept, mend it and run the same command again"
