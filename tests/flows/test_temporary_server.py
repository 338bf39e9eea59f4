"""Runs without a Prefect server of their own choice: each starts one, and none outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from storage.home import Home

RUN = "from flows.cli.app import main; import sys; sys.argv = ['mneme', 'run', 'planted']; main()"
PATIENCE_SECONDS = 300.0


def start(home: Home) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-c", RUN]
    return subprocess.Popen(command, env=environment | {"MNEME_HOME": str(home.root)}, stderr=subprocess.PIPE)


def server(run: subprocess.Popen[bytes]) -> Path:
    """The folder in /proc of the server that a run has started and that answers."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        assert run.poll() is None, run.communicate()[1].decode()
        threads = Path(f"/proc/{run.pid}/task").glob("*/children")
        for child in {Path(f"/proc/{each}") for thread in threads for each in thread.read_text().split()}:
            if b"flows.temporary_server" in (child / "cmdline").read_bytes() and listening(child):
                return child
        time.sleep(0.1)
    raise TimeoutError("no server came")


def listening(process: Path) -> set[str]:
    """The addresses at which a process listens, as hexadecimal digits of the kernel's, without ports."""
    sockets = set()
    for each in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(each.readlink()))
    lines = [line.split() for kind in ("tcp", "tcp6") for line in (process / "net" / kind).read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


def is_gone(process: Path) -> bool:
    """Whether it ends within a minute."""
    until = time.monotonic() + 60
    while process.exists() and time.monotonic() < until:
        time.sleep(0.1)
    return not process.exists()


def test_two_runs_begun_at_once_in_a_fresh_home_have_a_server_each_that_ends_with_its_run(home: Home) -> None:
    runs = [start(home), start(home)]
    servers = [server(run) for run in runs]
    assert [listening(each) for each in servers] == [{"0100007F"}] * 2  # 127.0.0.1
    runs[0].kill()
    assert runs[0].wait() == -signal.SIGKILL
    assert is_gone(servers[0])
    runs[1].terminate()
    said = runs[1].communicate(timeout=PATIENCE_SECONDS)[1].decode()
    assert runs[1].returncode == 143, said
    assert said.splitlines()[-1].startswith("mneme: ended by SIGTERM; what was computed is kept")
    assert is_gone(servers[1])
