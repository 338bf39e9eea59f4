"""Kill a study at twenty random moments: the next run completes, with no row lost, doubled or changed."""

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

KILLS = 20
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


def test_twenty_kills_leave_the_same_rows_as_none(home: Home, tmp_path: Path, prefect_server: str) -> None:
    undisturbed = Home(tmp_path / "undisturbed")
    began = time.monotonic()
    calm = start(undisturbed.root, prefect_server)
    assert calm.wait(timeout=300) == 0, calm.stderr.read() if calm.stderr else ""
    seconds = time.monotonic() - began

    rng, killed = random.Random(0), 0
    for number in range(KILLS):
        if number % 5 == 0 and home.entries.is_dir():  # begin again, so that every stage meets a kill
            for entry in sorted(home.entries.iterdir()):
                if rng.random() < 0.7:
                    entry.unlink()
        process = start(home.root, prefect_server)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= KILLS // 2

    last = start(home.root, prefect_server)
    assert last.wait(timeout=300) == 0, last.stderr.read() if last.stderr else ""
    assert rows(home, SCORES) == rows(undisturbed, SCORES)
    assert rows(home, "select count(*) as n from mart.trials") == [{"n": 3}]
    assert _mlflow_statuses(home) == {"FINISHED"} or _mlflow_statuses(home) == {"FINISHED", "KILLED"}


def _mlflow_statuses(home: Home) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return {str(run.info.status) for run in client.search_runs(experiments)}


@pytest.mark.parametrize("signal_number", [signal.SIGINT])
def test_an_interrupted_study_says_so_and_leaves_with_130(home: Home, prefect_server: str, signal_number: int) -> None:
    process = start(home.root, prefect_server)
    time.sleep(3.0)
    process.send_signal(signal_number)
    assert process.wait(timeout=60) == 130
    assert process.stderr is not None
    assert b"mneme: interrupted; what was computed is kept" in process.stderr.read()
