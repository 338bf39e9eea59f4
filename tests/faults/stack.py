"""The services of docker-compose.yml started natively: the same commands, environment and health checks.

Hosts, ports and volumes are replaced by loopback, free ports and folders; nothing else is. PostgreSQL is the system's,
as `apt-get install postgresql` leaves it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "7d0c5e0f9a6b4e21"
_PATIENCE_SECONDS = 600.0
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::[-?]([^}]*))?\}")
_IMAGE_VARIABLE = re.compile(r"^(?:ENV| {4}) *(\w+)=(\S+?)(?: \\)?$", re.MULTILINE)


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found and shutil.which("psql") else None


class Stack:
    """All services of the compose file, each a process with a log of its own in `folder/logs`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.extra = folder, environment
        self.services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.ports = {name: _free_port() for name in ("postgres", "prefect", "mlflow", "worker")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.api = f"http://127.0.0.1:{self.ports['prefect']}/api"
        self.tracking = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.home = folder / "mneme"
        self.database = folder / "socket" / "data"
        for name in ("logs", "mneme", "mlflow", "socket"):
            (folder / name).mkdir(parents=True)
        self._programs = postgres_programs() or Path()

    def start(self, *names: str) -> None:
        """Start services, in the file's order, each when those that it waits for are healthy or through."""
        for name in names or tuple(self.services):
            if name == "postgres":
                self.start_postgres()
            else:
                self._start(name)
            if "healthcheck" in self.services[name]:
                self.wait_until_healthy(name)
            elif (code := self.processes[name].wait(_PATIENCE_SECONDS)) != 0:
                raise RuntimeError(f"{name} ended with {code}: {self.log(name)[-2000:]}")

    def stop(self, *names: str) -> None:
        """End services as `docker compose stop` does, the last one first."""
        for name in reversed(names or tuple(self.services)):
            if name == "postgres":
                self.stop_postgres("fast")
            elif (process := self.processes.pop(name, None)) is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_seconds(self.services[name].get("stop_grace_period", "10s")) * 6)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def is_healthy(self, name: str) -> bool:
        """What the health check of a service says now."""
        kind, *command = self._filled(self.services[name]["healthcheck"]["test"])
        command = ["sh", "-c", command[0].replace("$$", "$")] if kind == "CMD-SHELL" else command
        environment = self._environment(name) | {"PGPORT": str(self.ports["postgres"])}
        return subprocess.run(command, env=environment, check=False, capture_output=True, timeout=120).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        """Raises RuntimeError with the end of its log where a service ends or stays unhealthy."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while not self.is_healthy(name):
            process = self.processes.get(name)
            if time.monotonic() > until or (process is not None and process.poll() is not None):
                raise RuntimeError(f"{name} is not healthy: {self.log(name)[-2000:]}")
            time.sleep(1.0)

    def log(self, name: str) -> str:
        """All that a service has written."""
        path = self.folder / "logs" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def start_postgres(self) -> None:
        """The system's PostgreSQL over a data folder of ours; the first time, with the databases of docker/initdb."""
        data = self.database
        is_new = not data.exists()
        if is_new:
            self._initialise(data)
        listening = (
            f"-p {self.ports['postgres']} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data.parent}"
        )
        log = data.parent / "log"
        self._as_postgres(
            [self._programs / "pg_ctl", "-D", data, "-l", log, "-o", listening, "-w", "-t", "120", "start"]
        )
        if is_new:
            way = {"PGHOST": str(data.parent), "PGPORT": str(self.ports["postgres"]), "PGPASSWORD": PASSWORD}
            script = ROOT / "docker" / "initdb" / "databases.sh"
            subprocess.run(["sh", script], env=self._environment("postgres") | way, check=True, capture_output=True)

    def stop_postgres(self, how: str) -> None:
        """`fast` ends connections in order; `immediate` is a power cut."""
        data = self.database
        if (data / "postmaster.pid").exists():
            self._as_postgres([self._programs / "pg_ctl", "-D", data, "-m", how, "-w", "stop"])

    def _initialise(self, data: Path) -> None:
        word = data.parent / "word"
        word.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(data.parent, "postgres")
            shutil.chown(word, "postgres")
        self._as_postgres(
            [
                self._programs / "initdb",
                "-D",
                data,
                "-U",
                "mneme",
                "-A",
                "scram-sha-256",
                f"--pwfile={word}",
                "-E",
                "UTF8",
            ]
        )
        word.unlink()

    def _as_postgres(self, command: Sequence[str | Path]) -> None:
        """PostgreSQL refuses to run as root."""
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with (self.folder / "logs" / "postgres").open("ab") as log:
            subprocess.run([*user, *command], check=True, stdout=log, stderr=log, cwd="/", timeout=_PATIENCE_SECONDS)

    def _start(self, name: str) -> None:
        with (self.folder / "logs" / name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._filled(self.services[name]["command"]),
                env=self._environment(name),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self, name: str) -> dict[str, str]:
        """What the image and the compose file set, and no more of this process's environment than the path."""
        image = dict(_IMAGE_VARIABLE.findall((ROOT / "Dockerfile").read_text()))
        given = {key: str(value) for key, value in self.services[name].get("environment", {}).items()}
        filled = {key: self._filled([value])[0] for key, value in (image | given).items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(self.folder), "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["worker"])}
        return {key: value for key, value in filled.items() if value} | own | self.extra

    def _filled(self, texts: list[str]) -> list[str]:
        return [self._natively(_VARIABLE.sub(self._value, text)) for text in texts]

    def _value(self, found: re.Match[str]) -> str:
        known = {"POSTGRES_USER": "mneme", "POSTGRES_PASSWORD": PASSWORD}
        known |= {"PREFECT_PORT": str(self.ports["prefect"]), "MLFLOW_PORT": str(self.ports["mlflow"])}
        return known.get(found[1], found[2] or "")

    def _natively(self, text: str) -> str:
        """Loopback for hosts, free ports for those of the containers, folders for volumes."""
        places = {
            "/var/lib/mneme": str(self.home),
            "/var/lib/mlflow": str(self.folder / "mlflow"),
            "0.0.0.0": "127.0.0.1",
        }
        containers = {"postgres": "5432", "prefect": "4200", "mlflow": "5000", "worker": "8080"}
        for name, port in containers.items():
            places |= {f"{name}:{port}": f"127.0.0.1:{self.ports[name]}"}
            text = re.sub(rf"(?<=127\.0\.0\.1:){port}\b|(?<=--port=){port}\b|^{port}$", str(self.ports[name]), text)
        for place, native in places.items():
            text = text.replace(place, native)
        return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
