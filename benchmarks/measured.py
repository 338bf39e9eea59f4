"""What a contender's process hands back, and how it takes the time."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Found = TypeVar("Found")


@dataclass
class Measured:
    """Values to compare, wall and processor seconds of the best run, facts (JSON), peak memory of the process."""

    values: np.ndarray
    seconds: float
    cpu_seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the numbers to path.json and the values to path.npy."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        np.save(path.with_suffix(".npy"), self.values)
        numbers = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mib": peak} | self.facts
        path.with_suffix(".json").write_text(json.dumps(numbers))


class Beside:
    """Times the parts of a long run, each against a plain forward run right after it, so that noise cancels.

    It is the run's `Progress`; a part lasts at least twice as long as a plain forward.
    seconds, cpu_seconds: the parts alone; forwards, cpu_forwards: the same in plain forwards, each part against the
    mean of the two that enclose it; plains: seconds of each plain forward.
    """

    def __init__(self, plain: Callable[[], object]) -> None:
        self.plain = plain
        self.plains: list[float] = []
        self.seconds = self.cpu_seconds = self.forwards = self.cpu_forwards = 0.0
        self.before = self._plain()
        self.since = _now()

    def __call__(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  a Progress
        """A part may end here."""
        if _now()[0] - self.since[0] >= 2 * self.before[0]:
            self.close()

    def close(self) -> None:
        """A part ends here."""
        now = _now()
        wall, cpu = now[0] - self.since[0], now[1] - self.since[1]
        after = self._plain()
        self.seconds += wall
        self.cpu_seconds += cpu
        self.forwards += 2 * wall / (self.before[0] + after[0])
        self.cpu_forwards += 2 * cpu / (self.before[1] + after[1])
        self.before = after
        self.since = _now()

    def _plain(self) -> tuple[float, float]:
        wall, cpu = _now()
        self.plain()
        after = _now()
        self.plains.append(after[0] - wall)
        return after[0] - wall, after[1] - cpu


def best_of(n_runs: int, run: Callable[[], Found]) -> tuple[Found, float, float]:
    """The result, and wall and processor seconds of the fastest of `n_runs` runs."""
    found, walls, cpus = None, [], []
    for _ in range(n_runs):
        wall, cpu = _now()
        found = run()
        after = _now()
        walls.append(after[0] - wall)
        cpus.append(after[1] - cpu)
    assert found is not None
    return found, min(walls), min(cpus)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
