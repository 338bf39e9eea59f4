"""Progress of long work on its way from the science to whoever listens (the terminal, the log)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Told what is going on."""

    def begin(self, label: str) -> None:
        """A stage of work starts."""

    def advance(self, label: str, done: int, total: int, note: str) -> None:
        """`done` of `total` of the stage is done."""

    def end(self, label: str, outcome: str, why: str = "") -> None:
        """The stage ended: `computed`, `cached`, `checked` or `failed`, with the sentence that says why."""


class Silence:
    """Listens to nothing."""

    def begin(self, label: str) -> None:
        """Nothing."""

    def advance(self, label: str, done: int, total: int, note: str) -> None:
        """Nothing."""

    def end(self, label: str, outcome: str, why: str = "") -> None:
        """Nothing."""


_listener: list[Listener] = [Silence()]


def listener() -> Listener:
    """Who listens now."""
    return _listener[0]


@contextmanager
def listening(to: Listener) -> Iterator[None]:
    """Let `to` listen for the length of the block."""
    before, _listener[0] = _listener[0], to
    try:
        yield
    finally:
        _listener[0] = before


class Narration:
    """A `Progress` callback that speaks under one label."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Pass it on."""
        listener().advance(self.label, done, total, note)
