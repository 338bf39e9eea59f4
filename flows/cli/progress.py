"""Progress on the terminal: a bar where there is one, a line per stage where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.cli.console import console

_QUIET_SECONDS = 5.0
_TOLD_BY_OTHERS = (
    "read model:",
    "deliver:",
    "record:",
    "report:",
)  # quick stages behind the ones that a user waits for


class Terminal:
    """A listener that shows stages; what was cached is counted, not listed."""

    def __init__(self, n_trials: int) -> None:
        self.console = console(stderr=True)
        self.n_trials = n_trials
        self._bars: dict[str, TaskID] = {}
        self._spoken: dict[str, float] = {}
        self._cached = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self.console.print(f"{self.n_trials} trials; starting Prefect")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._cached:
            self.console.print(f"  {self._cached} stages found in the cache")

    def begin(self, label: str) -> None:
        """A stage starts: show a bar for it."""
        self._bars[label] = self._progress.add_task(label, total=None, note="")

    def advance(self, label: str, done: int, total: int, note: str) -> None:
        """Move the bar, or say a line every few seconds where there is no terminal."""
        bar = self._bars.get(label)
        if bar is None:
            bar = self._bars[label] = self._progress.add_task(label, total=total, note=note)
        self._progress.update(bar, completed=done, total=total, note=note)
        quiet = time.monotonic() - self._spoken.get(label, 0.0)
        if not self.console.is_terminal and quiet > _QUIET_SECONDS:
            self._spoken[label] = time.monotonic()
            self.console.print(f"  {label}  {done}/{total}  {note}")

    def end(self, label: str, outcome: str, why: str = "") -> None:
        """The stage ended: a line, unless it was only found."""
        bar = self._bars.pop(label, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if outcome == "cached":
            self._cached += 1
        elif outcome not in {"computed", "checked"} or not label.startswith(_TOLD_BY_OTHERS):
            self.console.print(f"  {outcome:<14} {label}" + (f": {why}" if why else ""), soft_wrap=True)
