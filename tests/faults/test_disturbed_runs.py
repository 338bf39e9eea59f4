"""Runs killed, out of disk, over damaged files, cut from a database: the next run leaves what an undisturbed one does.

`make faults` runs the short forms and the long ones. Each prints what it did.
"""

from __future__ import annotations

import random
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from storage.lake import Lake
from tests.faults.conftest import Calm, Runs
from tests.faults.contents import files_by_room, foreign_rows, lose_some, lost_and_foreign
from tests.faults.disks import damage, small_disk
from tests.faults.runs import KILLED, Fault

SMALL_DISK_MIB = 64


def times(few: int, many: int) -> pytest.MarkDecorator:
    """How often: few times, and many; a long form may take hours."""
    long = pytest.param(many, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])
    return pytest.mark.parametrize("n_times", [few, long])


def tell(counts: Counter[str]) -> None:
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())), flush=True)


def assert_mended(runs: Runs, calm: Calm, home: Home, why: Any = None) -> None:
    """One more run, which nothing disturbs, completes and leaves what an undisturbed home holds."""
    ended = runs.run(home)
    assert ended.code == 0, (why, ended.said)
    assert lost_and_foreign(home, calm.contents) == {}, why


def some_kill(draw: random.Random, calm: Calm) -> Fault:
    """A kill at a change of a file, or after some processor time (inside libraries, between changes)."""
    if draw.random() < 0.5:
        return Fault(at_change=draw.randint(1, calm.n_changes))
    return Fault(after_seconds=draw.uniform(0.01, calm.seconds))


def mlflow_statuses(home: Home) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return {str(run.info.status) for run in client.search_runs(experiments)}


@times(few=3, many=200)
def test_killed_runs_alone_and_in_pairs(runs: Runs, calm: Calm, home: Home, draw: random.Random, n_times: int) -> None:
    counts: Counter[str] = Counter()
    while counts["killed"] < n_times:
        lose_some(home, draw)
        begun = [runs.start(home, some_kill(draw, calm)) for _ in range(draw.choice([1, 1, 2]))]
        for ended in [run.end() for run in begun]:
            assert ended.code in (0, *KILLED), ended.said
            counts["completed" if ended.code == 0 else "killed"] += 1
        assert foreign_rows(home, calm.contents) == []
        tell(counts)
    assert_mended(runs, calm, home)
    assert "RUNNING" not in mlflow_statuses(home)


@pytest.mark.parametrize(
    ("sent", "code", "sentence"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_run_that_is_told_to_end_says_so_and_the_next_one_goes_on(
    runs: Runs, calm: Calm, home: Home, sent: signal.Signals, code: int, sentence: str
) -> None:
    ended = runs.run(home, Fault(at_change=calm.n_changes // 2, sent=sent))
    assert ended.code == code, ended.said
    assert f"mneme: {sentence}; what was computed is kept" in ended.said
    assert_mended(runs, calm, home)
    assert "RUNNING" not in mlflow_statuses(home)


@times(few=1, many=30)
def test_a_disk_that_fills_under_a_run_is_one_sentence(
    runs: Runs, calm: Calm, tmp_path: Path, draw: random.Random, n_times: int
) -> None:
    counts: Counter[str] = Counter()
    with small_disk(tmp_path / "disk", SMALL_DISK_MIB) as disk:
        home, ballast = Home(disk), disk / "ballast"
        for _ in range(n_times):
            lose_some(home, draw)
            ended = runs.run(home, Fault(at_change=draw.randint(3, calm.n_changes), ballast=ballast))
            if ended.code:
                assert (ended.code, ended.said.count("mneme: ")) == (1, 1), ended.said
                assert "is full: free some space and run again" in ended.said
            counts["ended with the sentence" if ended.code else "had written all before"] += 1
            assert foreign_rows(home, calm.contents) == []
            ballast.unlink(missing_ok=True)
            tell(counts)
        assert_mended(runs, calm, home)


@times(few=1, many=40)
def test_files_truncated_altered_emptied_overwritten_and_removed(
    runs: Runs, calm: Calm, home: Home, draw: random.Random, n_times: int
) -> None:
    counts: Counter[str] = Counter()
    assert_mended(runs, calm, home)
    for _ in range(n_times):
        spoilt = []
        for room, paths in files_by_room(home).items():
            for path in draw.sample(paths, min(len(paths), draw.choice([0, 1, 3]))):
                how = damage(path, draw)
                spoilt.append(f"{how} {path.relative_to(home.root)}")
                counts[f"{room} {how}"] += 1
        assert_mended(runs, calm, home, spoilt)
        tell(counts)


def test_a_lake_that_is_lost_whole_is_delivered_anew(runs: Runs, calm: Calm, home: Home) -> None:
    assert_mended(runs, calm, home)
    for name in Lake(home.lake).files():
        (home.lake / name).unlink()
    assert_mended(runs, calm, home)


def test_a_run_that_cannot_reach_its_database_of_runs_is_one_sentence(runs: Runs, calm: Calm, home: Home) -> None:
    assert_mended(runs, calm, home)
    connection = sqlite3.connect(home.mlflow_database)
    connection.execute("begin exclusive")
    lose_some(home, random.Random(0))
    ended = runs.run(home)
    connection.close()
    assert (ended.code, ended.said.count("mneme: ")) == (1, 1), ended.said
    assert_mended(runs, calm, home)
