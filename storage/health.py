"""Checks of an installation and a home, each with what to do."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mneme.errors import MnemeError
from storage.config_files import KINDS, config_names, read_spec
from storage.drift import broken_promises_now
from storage.home import Home, writable_home
from storage.prefect_runs import NoServer, failed_deployments, late_runs
from storage.rows import rows
from storage.studies import load_study
from storage.study_runs import COMPLETED, RUNNING, read_runs
from storage.warehouse import refuse_later

_GIB = 2**30
_NEEDS = ("prefect", "torch", "transformers", "mlflow", "duckdb", "pandera", "polars", "pydantic")
_TOGETHER = (("fastapi", (0, 151)), ("sqlalchemy", (2, 1)))  # prefect 3.8 fails silently on these and newer ones


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    is_fine: bool
    finding: str


def examine(home: Home) -> list[Finding]:
    """Run every check; none changes anything but a test file in the home."""
    checks: dict[str, Callable[[], str]] = {
        "packages": _packages,
        "home": lambda: f"{writable_home().root} can be written",
        "disk": lambda: _disk(home),
        "configs": _configs,
        "results": lambda: _results(home),
        "lake": lambda: _lake(home),
        "last runs": lambda: runs_of_studies(home),
        "promises": lambda: _promises(home),
        "prefect server": _server,
        "scheduled runs": scheduled_runs,
    }
    return [_run(name, check) for name, check in checks.items()]


class _Trouble(MnemeError):
    """A check failed; the text says what to do."""


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:
        return Finding(name, False, str(error))


def _packages() -> str:
    try:
        found = {name: version(name) for name in _NEEDS}
        for name, ceiling in _TOGETHER:
            if tuple(int(part) for part in version(name).split(".")[:2]) >= ceiling:
                raise _Trouble(f"{name} {version(name)} breaks prefect: install with `-c constraints.txt`")
    except PackageNotFoundError as error:
        raise _Trouble(f"package {error.name} is missing: install with `-c constraints.txt`") from error
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _disk(home: Home) -> str:
    place = home.root if home.root.exists() else home.root.parent
    free = shutil.disk_usage(place).free
    if free < _GIB:
        raise _Trouble(f"{free / _GIB:.2f} GiB free: free some space, or `mneme gc --free trace`")
    return f"{free / _GIB:.0f} GiB free"


def _configs() -> str:
    for kind in KINDS:
        for name in config_names(kind):
            read_spec(kind, name)
    for name in config_names("studies"):
        load_study(name)
    return ", ".join(f"{len(config_names(kind))} {kind}" for kind in KINDS)


def _results(home: Home) -> str:
    if not home.results.is_file():
        return "none yet: run `mneme run quickstart`"
    counts = rows(home, "select status, count(*) as n from mart.trials group by status order by status")
    failed = rows(home, "select trial_id, error from mart.trials where status = 'failed' order by delivered_at desc")
    if failed:
        raise _Trouble(f"{len(failed)} trials failed, the last {failed[0]['trial_id']}: {failed[0]['error']}")
    return ", ".join(f"{each['n']} {each['status']}" for each in counts) or "no trials"


def _lake(home: Home) -> str:
    refuse_later(home)
    set_aside = sorted((home.lake / "quarantine").rglob("*.parquet"))
    if set_aside:
        raise _Trouble(
            f"{len(set_aside)} damaged files are set aside in {home.lake / 'quarantine'}: run their studies again"
        )
    return f"{sum(1 for _ in home.lake.glob('*/*.parquet'))} files"


def runs_of_studies(home: Home) -> str:
    """How the last run of each study went; raises when one failed or was killed, with what it said."""
    troubles, fine = [], []
    for run in read_runs(home):
        if run.is_killed:
            troubles.append(f"{run.study}: began {run.began_at[:16]} UTC and was killed: run it again to go on")
        elif run.state in (COMPLETED, RUNNING):
            fine.append(f"{run.study} {run.state}")
        else:
            troubles.append(f"{run.study}: {run.state} {(run.ended_at or run.began_at)[:16]} UTC: {run.sentence}")
    if troubles:
        raise _Trouble("; ".join(troubles))
    return ", ".join(fine) or "no study has run here yet"


def _promises(home: Home) -> str:
    broken = broken_promises_now(home)
    if broken:
        raise _Trouble(f"{len(broken)} broken: {'; '.join(broken)}")
    return "all hold" if home.results.is_file() else "nothing is published yet"


def scheduled_runs() -> str:
    """What the Prefect server knows of late and failed runs; raises when there are any."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return "no server is set"
    try:
        troubles = [*late_runs(address), *failed_deployments(address)]
    except NoServer:
        return "unknown: the server does not answer"
    if troubles:
        raise _Trouble("; ".join(troubles))
    return "none is late, and the last run of each deployment ended well"


def _server() -> str:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return "none set: `mneme run` starts its own for the length of a run"
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310  the user's own address
            return f"{address} answers {answer.status}"
    except (urllib.error.URLError, ValueError, TimeoutError) as error:
        raise _Trouble(f"{address} does not answer ({error}): start it, or unset PREFECT_API_URL") from error
