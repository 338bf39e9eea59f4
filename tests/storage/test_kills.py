"""Writers killed at random moments lose no row and double none, and readers never see a part."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb

from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish, rebuild
from tests.storage.killed_writer import scores_of

ROOT = Path(__file__).parents[2]
ROUNDS = 11  # of two kills each, and more of them, ever later, where the machine is busy
MOST_ROUNDS = 60
ENOUGH = 20
SHOWN = """
select t.trial_id, t.delivery_id, count(r.head), min(r.score), max(r.score)
from mart.trials as t left join mart.head_ranking as r on t.trial_id = r.trial_id
group by t.trial_id, t.delivery_id
"""


def shown(home: Home) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home.results), read_only=True) as connection:
        return connection.execute(SHOWN).fetchall()


def faults(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Trials that are shown twice, in part, or as a mixture of two deliveries."""
    trials = [trial_id for trial_id, *_ in rows]
    wrong = []
    for trial_id, delivery_id, n_heads, low, high in rows:
        scores = scores_of(delivery_id)
        is_whole = n_heads == len(scores) and {low, high} == set(scores.values())
        if not is_whole or trials.count(trial_id) > 1 or delivery_id.split("-")[0][1:] != trial_id[1:]:
            wrong.append((trial_id, delivery_id, n_heads, low, high))
    return wrong


class Reader(threading.Thread):
    """Reads the published results again and again and notes what is wrong with them."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home, self.is_over, self.n_reads, self.faults = home, threading.Event(), 0, list[Any]()

    def run(self) -> None:
        n_before = 0
        while not self.is_over.wait(0.02):
            if self.home.results.exists():
                rows = shown(self.home)
                self.faults += faults(rows) + ([f"{n_before} > {len(rows)}"] if len(rows) < n_before else [])
                self.n_reads, n_before = self.n_reads + 1, len(rows)


def acknowledged(home: Home) -> set[str]:
    """The deliveries that a writer saw through."""
    path = home.root / "acknowledged"
    return set(path.read_text().split()) if path.exists() else set()


def kill_writers(home: Home, reader: Reader, seed: int) -> None:
    """Let pairs of writers work for a random while, then kill both, until much was delivered and read."""
    draw = random.Random(seed)
    command = [sys.executable, "-m", "tests.storage.killed_writer", str(home.root)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forker:
        assert forker.stdin is not None
        assert forker.stdout is not None
        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and reader.n_reads > ENOUGH and len(acknowledged(home)) > ENOUGH:
                break
            patience = max(1.0, number / ROUNDS)
            print(draw.randrange(1000), draw.randrange(1000), sep="\n", file=forker.stdin, flush=True)
            writers = [int(forker.stdout.readline()) for _ in range(2)]
            for writer in writers:
                time.sleep(draw.uniform(0.05, 1.3 * patience))
                os.kill(writer, signal.SIGKILL)
        forker.stdin.close()
        forker.wait()


def test_killed_writers_lose_and_double_nothing_and_readers_see_whole_states(tmp_path: Path) -> None:
    home = Home(tmp_path)
    reader = Reader(home)
    reader.start()
    try:
        kill_writers(home, reader, seed=1)
    finally:
        reader.is_over.set()
        reader.join()
    assert reader.faults == []
    assert reader.n_reads > ENOUGH

    after = publish(home)
    assert (after.warnings, after.promises_broken) == ((), ())
    delivered = acknowledged(home)
    assert len(delivered) > ENOUGH
    with duckdb.connect(str(home.results), read_only=True) as connection:
        stored = connection.execute("select delivery_id, count(*) from raw.head_scores group by all").fetchall()
        names = connection.execute("select delivery_id from raw.trials").fetchall()
    assert len(names) == len(set(names))
    assert delivered <= {name for (name,) in names}
    assert {name: n for name, n in stored if name in delivered} == {name: len(scores_of(name)) for name in delivered}

    merged = sorted(shown(home))
    assert faults(merged) == []
    rebuild(home)
    assert sorted(shown(home)) == merged
    assert not [path.name for path in home.root.glob(".results*")]
    assert {name.split("/")[0] for name in Lake(home.lake).files()} == {"answers", "head_scores", "trials"}
