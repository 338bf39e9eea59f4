"""Stages: computed once, found again, computed anew when anything is damaged."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from tasks.kernel_locks import KernelLockManager


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def counting_stage() -> tuple[Any, list[int]]:
    from storage.content import ContentStore
    from tasks.stage import stage

    ran: list[int] = []

    @stage("counting")
    def counting(home: Home, x: int) -> dict[str, Any]:
        ran.append(x)
        reference = ContentStore(home.store).put_file("x.txt", lambda path: path.write_text(str(x)))
        return {"object": reference.to_json(), "x": x, "forwards": 2}

    return counting, ran


def run(counting: Any, home: Home, **options: Any) -> dict[str, Any]:
    from prefect import flow

    @flow(persist_result=False)
    def once() -> dict[str, Any]:
        return dict(counting.run(home, "counting-key", "label", {"x": 7}, **options))

    return once()


def test_a_stage_is_computed_once_and_then_found(prefect_server: str, home: Home) -> None:
    counting, ran = counting_stage()
    first, second = run(counting, home), run(counting, home)
    assert first == second
    assert first["x"] == 7
    assert ran == [7]


def test_refresh_computes_anew(prefect_server: str, home: Home) -> None:
    counting, ran = counting_stage()
    run(counting, home)
    run(counting, home, refresh=True)
    assert ran == [7, 7]


def test_a_damaged_object_is_noticed_when_it_is_used(prefect_server: str, home: Home) -> None:
    counting, ran = counting_stage()
    run(counting, home)
    (victim,) = home.store.glob("objects/*/*/x.txt")
    victim.write_text("8")
    run(counting, home, use=False)
    assert ran == [7]
    run(counting, home, use=True)
    assert ran == [7, 7]
    assert victim.read_text() == "7"


@pytest.mark.parametrize("harm", ["truncate", "alter", "empty", "delete"])
def test_a_damaged_entry_is_computed_anew(prefect_server: str, home: Home, harm: str) -> None:
    counting, ran = counting_stage()
    run(counting, home)
    path = home.entries / "counting-key"
    content = path.read_text()
    if harm == "delete":
        path.unlink()
    else:
        path.write_text(
            {"truncate": content[:50], "empty": "", "alter": content.replace('\\"x\\": 7', '\\"x\\": 8')}[harm]
        )
    assert run(counting, home)["x"] == 7
    assert ran == [7, 7]


def test_the_ledger_counts_what_ran_and_not_what_was_found(prefect_server: str, home: Home) -> None:
    from tasks.ledger import ledger

    counting, _ = counting_stage()
    ledger.reset()
    run(counting, home)
    run(counting, home)
    assert [work.stage for work in ledger.all()] == ["counting"]
    assert ledger.forwards == 2


def test_values_on_disk_are_json_and_never_pickle(prefect_server: str, home: Home) -> None:
    counting, _ = counting_stage()
    run(counting, home)
    for path in home.entries.iterdir():
        assert json.loads(path.read_text())["metadata"]["serializer"]["type"] == "json"


def _hold(folder: Path, ready: Any) -> None:
    assert KernelLockManager(folder).acquire_lock("k", "other")
    ready.set()
    time.sleep(60)


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    locks = KernelLockManager(tmp_path)
    assert locks.is_locked("k")
    assert not locks.acquire_lock("k", "me", acquire_timeout=0.2)
    os.kill(int(holder.pid or 0), signal.SIGKILL)
    holder.join()
    assert locks.acquire_lock("k", "me", acquire_timeout=5)
    assert locks.is_lock_holder("k", "me")
    locks.release_lock("k", "me")
    assert not locks.is_locked("k")


def test_a_lock_is_not_given_back_by_another_holder(tmp_path: Path) -> None:
    locks = KernelLockManager(tmp_path)
    assert locks.acquire_lock("k", "me")
    with pytest.raises(ValueError, match="no lock held by you"):
        locks.release_lock("k", "you")
