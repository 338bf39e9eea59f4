"""A command that SIGTERM ends says so, also where Prefect's server was ended with it and is missed."""

from __future__ import annotations

import socket

import httpx
import pytest
from prefect.exceptions import TerminationSignal

from flows.cli import app


def closed_port() -> int:
    """A port of this machine at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def miss_the_server() -> None:
    """What Prefect does with the signal: it tells its server, which is gone."""
    try:
        raise TerminationSignal(signal=15)
    except TerminationSignal:
        httpx.get(f"http://127.0.0.1:{closed_port()}/api", trust_env=False)


def refuse_to_answer() -> None:
    httpx.get(f"http://127.0.0.1:{closed_port()}/api", trust_env=False)


def test_sigterm_is_one_sentence_and_leaves_with_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", miss_the_server)
    with pytest.raises(SystemExit) as leaving:
        app.main()
    assert leaving.value.code == 143
    assert capsys.readouterr().err == (
        "mneme: ended by SIGTERM; what was computed is kept, run the same command again to go on\n"
    )


def test_a_server_that_is_missed_without_a_signal_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", refuse_to_answer)
    with pytest.raises(SystemExit) as leaving:
        app.main()
    assert leaving.value.code == 1
    assert "ended by SIGTERM" not in capsys.readouterr().err
