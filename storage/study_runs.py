"""How the last run of each study went: one small file per study, for `mneme doctor` and for the next run.

A note beside the results, never one of them: it may be deleted, and then the next run compares what it answers itself.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from storage.files import write_text
from storage.home import Home

RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class StudyRun:
    """The last run of a study. Times are UTC in ISO format; `compared_until` is how far answers were compared."""

    study: str
    state: str
    sentence: str | None
    began_at: str
    ended_at: str | None
    compared_until: str
    flow_run_id: str | None
    process: int
    machine: str

    @property
    def is_killed(self) -> bool:
        """Whether it never ended and its process is gone; False where it runs on another machine."""
        if self.state != RUNNING or self.machine != platform.node():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it lives, and is somebody else's
        return False


def utc_now() -> str:
    """This moment in UTC, as text that sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_run(home: Home, study: str, flow_run_id: str | None) -> StudyRun:
    """A run that begins now in this process; where the one before was killed, it compares that one's answers, too."""
    before, now = read_run(home, study), utc_now()
    return StudyRun(
        study=study,
        state=RUNNING,
        sentence=None,
        began_at=now,
        ended_at=None,
        compared_until=now if before is None else before.compared_until,
        flow_run_id=flow_run_id,
        process=os.getpid(),
        machine=platform.node(),
    )


def write_run(home: Home, run: StudyRun) -> None:
    """Note how a run stands, in the place of what was noted of the study before."""
    write_text(home.runs / f"{run.study}.json", json.dumps(asdict(run), indent=1))


def read_run(home: Home, study: str) -> StudyRun | None:
    """What is noted of a study's last run; None where nothing is, or nothing that can be read."""
    try:
        return StudyRun(**json.loads((home.runs / f"{study}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_runs(home: Home) -> list[StudyRun]:
    """The last run of every study, by name."""
    found = [read_run(home, path.stem) for path in sorted(home.runs.glob("*.json"))]
    return [run for run in found if run is not None]
