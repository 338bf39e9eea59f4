"""No secret in what is printed, recorded or sent to MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flows.cli import app
from flows.study import study
from flows.troubles import TrialsFailed
from flows.watching import watched
from storage.home import Home
from storage.mlflow_log import Recording, TrackingError, record_run, ui_command
from storage.study_runs import read_run

SECRET = "hunter22-0123456789"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PREFECT_API_URL", f"http://ada:{SECRET}@127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def recording() -> Recording:
    address = f"https://ada:{SECRET}@example.org/model"
    trials = [{"path": address, "note": f"401 for {SECRET}"}]
    return Recording("k", "s", "n", 0, parameters={"source.path": address}, documents={"trials.json": trials})


def test_what_goes_to_mlflow_holds_no_secret(home: Home) -> None:
    run_id = record_run(home, recording())
    stored = [home.mlflow_database, *home.mlflow_artifacts.rglob("*.json")]
    contents = [path.read_bytes() for path in stored]
    assert len(stored) == 2
    assert all(b"https://***@example.org/model" in each for each in contents)
    assert not any(SECRET.encode() in each for each in contents)
    assert run_id.encode() in contents[0]


def test_a_tracking_server_that_does_not_answer_is_named_without_its_password(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:{SECRET}@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"MLflow at http://\*\*\*@127\.0\.0\.1:9 does not answer") as refusal:
        record_run(home, recording())
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_doctor_names_the_server_without_its_password(
    home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mneme", "doctor"])
    with pytest.raises(SystemExit):
        app.main()
    out, err = capfd.readouterr()
    assert "http://***@127.0.0.1:9/api" in "".join(out.split())
    assert SECRET not in out + err


def test_an_error_of_our_own_shows_its_place_and_no_secret(
    home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise KeyError(f"{SECRET} \x1b[2J")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(SystemExit, match="1"):
        app.main()
    err = capfd.readouterr().err
    assert "KeyError" in err
    assert "line " in err
    assert SECRET not in err
    assert "\x1b" not in err


def test_the_note_of_how_a_run_ended_holds_no_secret(home: Home) -> None:
    with pytest.raises(ConnectionError), watched(home, "s"):
        raise ConnectionError(f"http://ada:{SECRET}@127.0.0.1:9 refused")
    run = read_run(home, "s")
    assert run is not None
    assert run.sentence == "ConnectionError: http://***@127.0.0.1:9 refused"


def test_a_failing_run_leaves_a_secret_in_no_log_no_page_and_nothing_of_mlflow(
    home: Home,
    configs: Path,
    prefect_server: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (configs / "models" / "gone.yaml").write_text(f"source: {{kind: local, path: /nowhere/{SECRET}}}\n")
    with pytest.raises(TrialsFailed, match=r"model folder /nowhere/\*\*\* does not exist") as failed:
        study("planted", settings={"models": ["planted", "gone"], "probes": ["previous_token"]})
    said = capfd.readouterr()
    assert SECRET not in str(failed.value) + said.out + said.err + caplog.text
    rooms = (home.mlflow_artifacts, home.reports, home.runs)
    files = [home.mlflow_database, *(path for room in rooms for path in room.rglob("*") if path.is_file())]
    assert {path.suffix for path in files} >= {".db", ".json", ".html"}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_servers_listen_on_the_loopback_unless_somebody_says_otherwise(home: Home) -> None:
    from prefect.settings import PREFECT_SERVER_API_HOST

    assert "--host 127.0.0.1 " in ui_command(home)
    assert PREFECT_SERVER_API_HOST.value() == "127.0.0.1"
