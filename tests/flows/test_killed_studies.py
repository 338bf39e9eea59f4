"""Kill a study at random moments (twenty with --runslow): the next run completes, no row lost, doubled or changed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.home import Home
from storage.rows import rows

SCORES = "select trial_id, probe, layer, head, item, value from mart.item_scores order by all"
RUN = "from flows.cli.app import main; import sys; sys.argv = ['mneme', 'run', 'planted']; main()"


def start(home: Path, server: str) -> subprocess.Popen[bytes]:
    """`mneme run planted` in a process group of its own."""
    environment = {**os.environ, "MNEME_HOME": str(home), "PREFECT_API_URL": server}
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_leave_the_same_rows_as_none(home: Home, tmp_path: Path, prefect_server: str, kills: int) -> None:
    undisturbed = Home(tmp_path / "undisturbed")
    began = time.monotonic()
    calm = start(undisturbed.root, prefect_server)
    assert calm.wait(timeout=300) == 0, calm.stderr.read() if calm.stderr else ""
    seconds = time.monotonic() - began

    rng, killed = random.Random(0), 0
    for _ in range(3 * kills):
        for entry in sorted(home.entries.iterdir()) if home.entries.is_dir() else []:
            if rng.random() < 0.5:  # so that every stage has work to do, and meets a kill
                entry.unlink()
        process = start(home.root, prefect_server)
        try:
            process.wait(timeout=rng.uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        if killed == kills:
            break
    assert killed == kills

    last = start(home.root, prefect_server)
    assert last.wait(timeout=300) == 0, last.stderr.read() if last.stderr else ""
    assert rows(home, SCORES) == rows(undisturbed, SCORES)
    assert rows(home, "select count(*) as n from mart.trials") == [{"n": 3}]
    assert "RUNNING" not in _mlflow_statuses(home)


def _mlflow_statuses(home: Home) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return {str(run.info.status) for run in client.search_runs(experiments)}


def test_an_interrupted_study_says_so_and_leaves_with_130(home: Home, prefect_server: str) -> None:
    process = start(home.root, prefect_server)
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr is not None
    assert b"mneme: interrupted; what was computed is kept" in process.stderr.read()
