"""Prefect's temporary server, which lasts as long as the run that started it, however that ends.

Prefect starts one where no PREFECT_API_URL is set, and ends it at the end of the process: not where the process is
killed. The one here holds the end of a pipe that closes with the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import uvicorn
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from storage.home import Home
from storage.locks import file_lock

_GRACE_SECONDS = 5.0
_KIND = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}  # as Prefect does


class TemporaryServer(SubprocessASGIServer):
    """The server that Prefect takes in this process where none is set; started when it is first asked for.

    Prefect keeps the first of these objects that is made and uses no other.
    """

    home: Home

    def start(self, timeout: int | None = None) -> None:
        """Start it and wait until it answers, one server of a home at a time: each may migrate its database."""
        if not self.running:
            with file_lock(self.home.locks / "prefect-server.lock"):
                super().start(timeout)

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(  # noqa: S603  our own words
            [sys.executable, "-m", __name__, str(self.port)],
            env={**os.environ, **_KIND, **settings},
            stdin=subprocess.PIPE,  # closed by the kernel when this process is gone
            start_new_session=True,  # what ends a whole group reaches the run, which ends its server last
        )


def use_temporary_server(home: Home) -> None:
    """Have Prefect start the temporary server of this process this way; call it before Prefect has started one."""
    server = TemporaryServer()
    server.home = home


def _serve(port: int) -> None:
    threading.Thread(target=_end_with_run, daemon=True).start()
    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


def _end_with_run() -> None:
    os.read(0, 1)  # nothing is ever written to it: this returns when the run is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
