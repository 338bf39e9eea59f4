"""What this process really computed, as opposed to found: the count behind "0 forward passes"."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One stage body that ran to its end."""

    stage: str
    key: str
    forwards: int
    seconds: float


class Ledger:
    """Thread-safe list of the work done since `reset`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: list[Work] = []

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._work.clear()

    def add(self, work: Work) -> None:
        """Note a piece of work."""
        with self._lock:
            self._work.append(work)

    def all(self) -> list[Work]:
        """A copy of the list."""
        with self._lock:
            return list(self._work)

    @property
    def forwards(self) -> int:
        """Forward passes of all the work: calls of the model, training not counted."""
        return sum(work.forwards for work in self.all())


ledger = Ledger()
