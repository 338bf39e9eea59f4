"""Notes on the last run of each study, and what doctor makes of them and of a Prefect server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from storage.health import runs_of_studies, scheduled_runs
from storage.home import Home
from storage.prefect_runs import NoServer, failed_deployments, late_runs
from storage.study_runs import COMPLETED, FAILED, new_run, read_run, read_runs, utc_now, write_run

LATE = {"name": "smart-poodle", "deployment_id": "1", "expected_start_time": "2026-01-02T02:00:00Z"}
FAILURE = {
    "name": "study quickstart",
    "state_type": "FAILED",
    "end_time": "2026-01-02T02:05:00Z",
    "state": {"message": "1 of 3 trials of quickstart failed"},
}
SUCCESS = {"name": "promises", "state_type": "COMPLETED", "end_time": "2026-01-02T02:05:00Z", "state": {}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers like Prefect's: one late run, one deployment that failed, one that did not."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(self._answer(asked)).encode())

        def _answer(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
            if self.path == "/api/deployments/filter":
                return [{"id": "1", "name": "nightly"}, {"id": "2", "name": "weekly"}]
            wanted = asked["flow_runs"]
            if "deployment_id" not in wanted:
                return [LATE] if wanted["state"]["name"]["any_"] == ["Late"] else []
            assert asked["sort"] == "END_TIME_DESC"
            return [FAILURE if wanted["deployment_id"]["any_"] == ["1"] else SUCCESS]

        def log_message(self, *words: object) -> None:
            pass

    made = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/api"
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_run_is_read_as_it_was_written_and_the_next_one_knows_how_far_it_compared(home: Home) -> None:
    assert (read_run(home, "s"), read_runs(home)) == (None, [])
    run = replace(new_run(home, "s", "f1"), state=COMPLETED, ended_at=utc_now(), compared_until=utc_now())
    write_run(home, run)
    assert read_runs(home) == [run]
    write_run(home, new_run(home, "s", None))  # killed
    after = new_run(home, "s", None)
    assert (after.compared_until, after.state, after.ended_at) == (run.compared_until, "running", None)


def test_a_note_that_cannot_be_read_is_no_note(home: Home) -> None:
    home.runs.mkdir()
    for name, text in (("torn", '{"study": "t'), ("other", '{"study": "t"}'), ("list", "[]")):
        (home.runs / f"{name}.json").write_text(text)
    assert read_runs(home) == []


def test_a_run_whose_process_is_gone_was_killed(home: Home) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lives = new_run(home, "s", None)
    assert not lives.is_killed
    assert replace(lives, process=gone.pid).is_killed
    assert not replace(lives, process=gone.pid, machine="another").is_killed
    assert not replace(lives, process=gone.pid, state=FAILED).is_killed


def test_doctor_names_the_studies_whose_last_run_failed_or_was_killed(home: Home) -> None:
    assert runs_of_studies(home) == "no study has run here yet"
    write_run(home, replace(new_run(home, "good", None), state=COMPLETED, ended_at=utc_now()))
    write_run(home, new_run(home, "under_way", None))
    assert runs_of_studies(home) == "good completed, under_way running"
    write_run(home, replace(new_run(home, "bad", None), state="scores moved", sentence="3 numbers moved"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_run(home, replace(new_run(home, "cut", None), process=gone.pid))
    with pytest.raises(Exception, match=r"bad: scores moved .*: 3 numbers moved; cut: began .* and was killed"):
        runs_of_studies(home)


def test_late_and_failed_runs_are_read_from_the_server(server: str) -> None:
    assert late_runs(server) == ["nightly: a run was due at 2026-01-02 02:00 UTC and has not begun"]
    assert failed_deployments(server) == [
        "nightly: study quickstart failed at 2026-01-02 02:05 UTC: 1 of 3 trials of quickstart failed"
    ]


def test_doctor_says_what_the_server_says(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert scheduled_runs() == "no server is set"
    monkeypatch.setenv("PREFECT_API_URL", server)
    with pytest.raises(Exception, match=r"was due at .* and has not begun; nightly: study quickstart failed"):
        scheduled_runs()


def test_a_server_that_does_not_answer_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoServer):
        late_runs("http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert scheduled_runs() == "unknown: the server does not answer"
