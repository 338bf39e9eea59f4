"""Writers to be killed: a process that has imported everything and forks one writer for each line it reads.

A writer delivers trials, answers them and publishes, without end, until it is killed. What it has delivered and
answered it notes in the file `acknowledged` of the home.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pandera.polars  # noqa: F401  a second to import: once, before the forks

import storage.validating  # noqa: F401
from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish
from tests.storage.rows import deliver_head_scores, deliver_trial

N_TRIALS = 40


def scores_of(delivery_id: str) -> dict[tuple[int, int], float]:
    """The heads and the one score of a delivery `d<trial>-<version>`."""
    trial, version = map(int, delivery_id[1:].split("-"))
    return {(0, head): (version + 1) / 100 for head in range(3 + trial % 5 + version)}


def write(home: Home, seed: int) -> None:
    """Deliver, answer, publish, until killed (or orphaned)."""
    draw, lake, forker = random.Random(seed), Lake(home.lake), os.getppid()
    while os.getppid() == forker:
        for trial in draw.sample(range(N_TRIALS), 3):
            delivery_id = f"d{trial}-{draw.randrange(2)}"
            deliver_head_scores(lake, delivery_id, scores_of(delivery_id))
            deliver_trial(lake, delivery_id, trial_id=f"t{trial}")
            lake.answer("s", f"t{trial}", delivery_id)
            with (home.root / "acknowledged").open("a") as file:
                file.write(f"{delivery_id}\n")
        publish(home)


def main() -> None:
    """Fork a writer for each seed on standard input and print its process number."""
    home = Home(Path(sys.argv[1]))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write(home, int(line))
            os._exit(0)
        print(child, flush=True)
    # the killed children are reaped by whoever waits for this process


if __name__ == "__main__":
    main()
