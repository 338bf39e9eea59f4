"""What a contender's process hands back, and how it takes the time."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

Found = TypeVar("Found")


@dataclass
class Measured:
    """Values to compare, wall and processor seconds of the best run, facts (JSON), peak memory of the process."""

    values: np.ndarray
    seconds: float
    cpu_seconds: float
    facts: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the numbers to path.json and the values to path.npy."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        np.save(path.with_suffix(".npy"), self.values)
        numbers = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mib": peak} | self.facts
        path.with_suffix(".json").write_text(json.dumps(numbers))


def best_of(n_runs: int, run: Callable[[], Found]) -> tuple[Found, float, float]:
    """The result, and wall and processor seconds of the fastest of `n_runs` runs."""
    found, walls, cpus = None, [], []
    for _ in range(n_runs):
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    assert found is not None
    return found, min(walls), min(cpus)
