"""A run of a study compared with the one before, and what stays of a run that ended badly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli.app import main
from flows.promises import promises
from flows.study import study
from flows.troubles import PromisesBroken, TrialsFailed
from storage.home import Home
from storage.lake import Lake
from storage.rows import rows
from storage.study_runs import read_run
from storage.warehouse import publish
from tests.planted import copy_model, save, uniform_model
from tests.storage.rows import deliver_answer, deliver_trial

pytestmark = pytest.mark.usefixtures("prefect_server", "own_environment")


@pytest.fixture
def model(home: Home, configs: Path, tmp_path: Path) -> Path:
    """The folder of a planted model of this test's own, which may become another one."""
    assert home.root.is_dir()
    folder = save(copy_model(), tmp_path / "model")
    (configs / "models" / "planted.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    return folder


def run(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["mneme", "run", "planted"])
    with pytest.raises(SystemExit) as leaving:
        main()
    return int(leaving.value.code or 0)


def test_other_weights_behind_the_same_trial_are_drift_once(
    home: Home, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    assert run(monkeypatch) == 0  # the same again: nothing to compare
    save(uniform_model(), model)
    capsys.readouterr()
    assert run(monkeypatch) == 3
    said = capsys.readouterr()
    assert "/ repeated_tokens[0] / induction (score L1H" in said.err
    assert "3 delivered" in said.out  # the summary comes first, as after any run
    moved = rows(home, "select distinct probe, changed from mart.drift where is_moved order by probe")
    assert [each["probe"] for each in moved] == ["copy_accuracy", "induction", "previous_token"]
    assert all("weights" in each["changed"] for each in moved)
    noted = read_run(home, "planted")
    assert noted is not None
    assert noted.state == "scores moved"
    assert run(monkeypatch) == 0  # compared with the run before, which had these numbers


def mlflow_runs(home: Home) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    ids = [each.experiment_id for each in client.search_experiments() if each.name == "planted"]
    return list(client.search_runs(ids, "status = 'FAILED'")) if ids else []


def test_a_failed_run_of_a_deployment_stays_in_mlflow_with_its_trials(
    home: Home, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configs / "models" / "broken.yaml").write_text("source: {kind: local, path: nowhere}\n")
    settings = {"models": ["broken"]}
    with pytest.raises(TrialsFailed):
        study("planted", settings=settings)
    assert mlflow_runs(home) == []  # somebody watched this one
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "nightly")
    state = study("planted", settings=settings, return_state=True)
    assert state.is_failed()
    assert "/ repeated_tokens[0] / previous_token" in state.message
    assert all(f"/ repeated_tokens[0] / {each}" in state.message for each in ("induction", "copy_accuracy"))
    (marked,) = mlflow_runs(home)
    trials = [each["trial_id"] for each in rows(home, "select trial_id from mart.trials where status = 'failed'")]
    assert set(marked.data.tags["mneme.failed_trials"].split(",")) == set(trials)
    assert marked.data.tags["mneme.state"] == "trials failed"
    assert marked.data.tags["mneme.flow_run_id"]


def test_the_weekly_check_names_the_broken_promise(home: Home) -> None:
    assert promises()["warnings"] == []
    lake = Lake(home.lake)
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    publish(home)
    with pytest.raises(PromisesBroken, match="a delivered head trial has head scores is broken by 1 row"):
        promises()
