"""One console for all commands: as wide as the terminal, wide enough to read where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that takes our texts as they are."""
    made = Console(stderr=stderr, highlight=False, markup=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, markup=False, width=_PIPE_WIDTH)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table whose last column takes what room there is and whose others stay on one line."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, show_edge=False)
    for name in columns[:-1]:
        made.add_column(name, no_wrap=True)
    made.add_column(columns[-1], overflow="fold")
    return made
