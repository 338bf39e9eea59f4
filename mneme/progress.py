"""How long work tells the outside where it stands, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the work done and the work in all, in the same unit, and a word about the latest state."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note of `done` of `total`."""


def silent(done: int, total: int, note: str = "") -> None:
    """Listen to nothing."""
