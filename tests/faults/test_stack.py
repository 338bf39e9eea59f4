"""The server stack of docker-compose.yml, started natively: a study by deployment, schedules, stops, cuts, restarts."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mneme.errors import MnemeError
from storage.health import scheduled_runs
from storage.home import Home
from storage.rows import rows
from tests.faults.conftest import STUDY
from tests.faults.prefect_rest import Prefect, wait_for
from tests.faults.stack import PASSWORD, Stack, postgres_programs
from tests.planted import copy_model, save

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
_BEGAN = time.monotonic()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, up; `quickstart`, which the nightly deployment runs, is a study of seconds here."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("stack")
    for kind in ("models", "promptsets", "probes", "studies"):
        (folder / "configs" / kind).mkdir(parents=True)
    planted = save(copy_model(), folder / "planted")
    (folder / "configs" / "models" / "planted.yaml").write_text(f"source: {{kind: local, path: {planted}}}\n")
    (folder / "configs" / "studies" / "quickstart.yaml").write_text(STUDY)
    for each in (folder, *folder.parents):  # PostgreSQL's own user must be able to reach its folder
        if each.owner() == "root" and each.name.startswith(("pytest-", "stack", "bt")):
            each.chmod(0o755)
    made = Stack(folder / "services", {"MNEME_CONFIGS": str(folder / "configs"), "OMP_NUM_THREADS": "1"})
    tell("starting PostgreSQL, Prefect, MLflow, deployments and the worker")
    try:
        made.start()
        tell("all healthy")
        yield made
    finally:
        made.stop()


def tell(sentence: str) -> None:
    """What is seen, with the seconds since the beginning."""
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {sentence}", flush=True)


def answers(stack: Stack) -> list[dict[str, Any]]:
    return rows(Home(stack.home), "select trial_id, delivery_id, delivered_at from mart.trials order by trial_id")


def doctor() -> str:
    """What `mneme doctor` says of scheduled runs; a server that is busy does not answer in time, and is asked again."""
    try:
        return scheduled_runs()
    except MnemeError as trouble:
        return str(trouble)


def mlflow_runs(stack: Stack) -> dict[str, tuple[str, list[str]]]:
    """Status and artifacts of every run, as the server tells them."""
    from mlflow import MlflowClient

    client = MlflowClient(stack.tracking)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    return {
        each.info.run_id: (each.info.status, sorted(file.path for file in client.list_artifacts(each.info.run_id)))
        for each in found
    }


def test_a_study_run_by_deployment_survives_stops_downtime_failures_and_a_power_cut(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", stack.api)
    prefect = Prefect(stack.api, "study", "nightly")
    prefect.never()
    first = prefect.run_now()
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"]
    delivered, recorded = answers(stack), mlflow_runs(stack)
    assert len(delivered) == 8
    assert {status for status, _ in recorded.values()} == {"FINISHED"}
    assert all(files for _, files in recorded.values())
    tell(
        f"{first['name']} by deployment: {first['state']['name']}; 8 trials, {len(recorded)} MLflow runs with artifacts"
    )

    _schedule_fires_and_overlaps_are_cancelled(stack, prefect, delivered)
    _downtime_is_told_and_nothing_is_lost(stack, prefect, delivered, recorded)
    _failure_names_the_trials(stack, prefect)
    _power_cut_is_survived(stack, prefect, delivered)
    written = [path for path in stack.folder.rglob("*") if path.is_file() and stack.database not in path.parents]
    assert {path.name for path in (stack.folder / "logs").iterdir()} == set(stack.services)
    assert [str(path) for path in written if PASSWORD.encode() in path.read_bytes()] == []
    tell(f"the database's password stands in none of {len(written)} files: logs, home and artifacts")


def _schedule_fires_and_overlaps_are_cancelled(stack: Stack, prefect: Prefect, delivered: list[dict[str, Any]]) -> None:
    prefect.every(seconds=10)
    wait_for(lambda: prefect.states()["Completed"] >= 2 and prefect.states()["Cancelled"] >= 1)
    assert answers(stack) == delivered
    assert _overlapping(prefect) == []
    tell(f"a schedule of 10 s: {dict(prefect.states())}; no two ran at once, no trial ran again")


def _downtime_is_told_and_nothing_is_lost(
    stack: Stack, prefect: Prefect, delivered: list[dict[str, Any]], recorded: dict[str, tuple[str, list[str]]]
) -> None:
    stack.stop("worker")
    wait_for(lambda: prefect.states()["Late"] >= 2)
    wait_for(lambda: "nightly: a run was due at" in doctor())
    wait_for(lambda: len(prefect.messages("Late")) >= 2)
    tell(f"worker stopped; an event for each late run; mneme doctor: {doctor().split(';')[0]}")
    before = {
        run["id"]: run["state"]["name"] for run in prefect.runs() if run["state"]["name"] in ("Completed", "Late")
    }
    stack.stop()
    stack.start("postgres", "prefect", "mlflow")
    kept = {run["id"] for run in prefect.runs()}
    assert before.keys() <= kept
    assert mlflow_runs(stack) == recorded
    tell(f"all stopped and started: {len(before)} flow runs and {len(recorded)} MLflow runs are as they were")
    n_completed, n_late = prefect.states()["Completed"], prefect.states()["Late"]
    stack.start("worker")
    wait_for(lambda: prefect.states()["Completed"] > n_completed)
    prefect.never()
    assert answers(stack) == delivered
    tell(f"worker back, {n_late} runs were late: {dict(prefect.states())}; no trial ran again")


def _failure_names_the_trials(stack: Stack, prefect: Prefect) -> None:
    model = Path(stack.extra["MNEME_CONFIGS"]).parent / "planted"
    shutil.move(model, model.with_name("gone"))
    failed = prefect.run_now()
    shutil.move(model.with_name("gone"), model)
    assert failed["state"]["type"] == "FAILED"
    assert "planted / repeated_tokens[0] / previous_token" in failed["state"]["message"]
    wait_for(lambda: re.search("nightly: .* failed at .* planted / repeated_tokens", doctor()) is not None)
    wait_for(
        lambda: "planted / repeated_tokens[0] / previous_token" in prefect.messages("Failed").get(failed["id"], "")
    )
    from mlflow import MlflowClient

    client = MlflowClient(stack.tracking)
    names = [each.experiment_id for each in client.search_experiments()]
    marks = client.search_runs(names, "attributes.status = 'FAILED'")
    assert [run.data.tags["mneme.flow_run_id"] for run in marks] == [failed["id"]]
    assert "planted / repeated_tokens[0] / previous_token" in marks[0].data.tags["mneme.trouble"]
    assert set(marks[0].data.tags["mneme.failed_trials"].split(",")) == {each["trial_id"] for each in answers(stack)}
    tell(f"model removed: {failed['state']['message'][:160]}")
    tell("the message, the event, mneme doctor and the tags in MLflow name the trials")


def _power_cut_is_survived(stack: Stack, prefect: Prefect, delivered: list[dict[str, Any]]) -> None:
    begun = prefect.begin()
    wait_for(lambda: prefect.run(begun)["state"]["type"] == "RUNNING")
    stack.stop_postgres("immediate")
    assert not stack.is_healthy("postgres")
    time.sleep(5.0)
    stack.start("postgres")
    stack.wait_until_healthy("prefect")
    wait_for(lambda: prefect.run(begun)["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"))
    tell(f"PostgreSQL cut for 5 s under a run, which ended {prefect.run(begun)['state']['name']}")
    last = prefect.run_now()
    assert last["state"]["type"] == "COMPLETED", last["state"]["message"]
    assert [each["delivery_id"] for each in answers(stack)] == [each["delivery_id"] for each in delivered]
    tell(f"the next run: {last['state']['name']}, all trials as before the cut")


def _overlapping(prefect: Prefect) -> list[tuple[str, str]]:
    """Pairs of runs that ran at the same time."""
    spans = sorted(
        (datetime.fromisoformat(run["start_time"]), datetime.fromisoformat(run["end_time"]), run["id"])
        for run in prefect.runs()
        if run["start_time"] and run["end_time"] and run["state"]["type"] == "COMPLETED"
    )
    return [(one[2], two[2]) for one, two in itertools.pairwise(spans) if two[0] < one[1]]
