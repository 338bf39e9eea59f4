"""Workers that are killed, run out of disk or are interrupted: the others go on or end, and the next run completes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.study import study
from flows.troubles import TrialsFailed
from storage.disk import DiskFull
from storage.home import Home
from storage.rows import rows
from tasks.narrator import Silence, listening
from tests.planted import copy_model, save

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
STUDY = """
models: [planted, other]
promptsets: [repeated_tokens]
probes: [previous_token, induction, copy_accuracy]
overrides: {promptsets.repeated_tokens.parameters.n_items: 6, promptsets.repeated_tokens.parameters.period: 12}
"""
RUN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # as in a terminal
    "from flows.cli.app import main; sys.argv = ['mneme', 'run', 'planted', '--workers', '2']; main()"
)


class Killer(Silence):
    """Kills one worker when the first stage begins."""

    def __init__(self) -> None:
        self.has_killed = False

    def begin(self, label: str) -> None:
        if not self.has_killed:
            self.has_killed = True
            os.kill(int(multiprocessing.active_children()[0].pid or 0), signal.SIGKILL)


@pytest.fixture
def home(tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home, and the study `planted` on two models."""
    for name, scale in (("planted", 50.0), ("other", 25.0)):
        folder = save(copy_model(induction_scale=scale), tmp_path / name)
        (configs / "models" / f"{name}.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    (configs / "studies" / "planted.yaml").write_text(STUDY)
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


def run(**settings: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = study("planted", settings=settings)
    return outcome


def test_a_killed_worker_fails_its_model_and_the_next_run_completes(home: Home) -> None:
    with listening(Killer()), pytest.raises(TrialsFailed, match=r"^3 of 6 trials of planted failed") as failed:
        run(workers=2)
    assert "ended before its work was done (BrokenProcessPool), killed or out of memory" in str(failed.value)
    assert failed.value.outcome["trials"] == {"delivered": 3, "failed": 3}
    assert multiprocessing.active_children() == []
    assert run()["trials"] == {"delivered": 6}
    assert rows(home, "select count(*) as n from mart.trials where status = 'delivered'") == [{"n": 6}]


def test_a_full_disk_in_a_worker_ends_the_study(home: Home) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, hard))  # workers inherit it; a trace is larger
    try:
        with pytest.raises(DiskFull, match=r"^the disk under .* is full: free some space and run again"):
            run(workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (signal.SIGINT, 130, b"mneme: interrupted; what was computed is kept"),
        (signal.SIGTERM, 143, b"mneme: ended by SIGTERM; what was computed is kept"),
    ],
)
def test_who_ends_the_first_process_ends_the_workers(
    home: Home, prefect_server: str, sent: signal.Signals, code: int, said: bytes
) -> None:
    environment = {**os.environ, "PREFECT_API_URL": prefect_server}
    process = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stderr=subprocess.PIPE)
    while not [*home.runs.glob("told-*/*")]:
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    assert workers
    process.send_signal(sent)
    assert process.wait(timeout=120) == code
    assert process.stderr is not None
    assert said in process.stderr.read()
    assert are_gone(workers)
    assert statuses(home) <= {"delivered"}
    assert run()["trials"] == {"delivered": 6}


def test_workers_end_when_the_first_process_is_killed(home: Home, prefect_server: str) -> None:
    environment = {**os.environ, "PREFECT_API_URL": prefect_server}
    process = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stderr=subprocess.DEVNULL)
    while not [*home.runs.glob("told-*/*")]:
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    assert workers
    process.kill()
    process.wait()
    assert are_gone(workers)
    assert run(workers=2)["trials"] == {"delivered": 6}


def children(process: int) -> list[Path]:
    """The folders in /proc of the processes that a process has started."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    return [Path(f"/proc/{each}") for thread in threads for each in thread.read_text().split()]


def are_gone(processes: list[Path]) -> bool:
    """Whether all of them end within a minute."""
    deadline = time.monotonic() + 60
    while any(each.exists() for each in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(each.exists() for each in processes)


def statuses(home: Home) -> set[str]:
    """How the trials went that the lake holds."""
    return {pl.read_parquet(path)["status"].item() for path in (home.lake / "trials").glob("*.parquet")}
