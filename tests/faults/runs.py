"""Runs of a study that meet a fault: each a forked process that has imported everything, so that it begins at once.

A fault strikes at the n-th change of a file (making, opening for writing, renaming, removing), or when the run has used
so many seconds of processor time; neither depends on what else the machine does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tests.faults.disks import fill

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PATIENCE_SECONDS = 900.0
KILLED = (-signal.SIGKILL, -signal.SIGPROF)


@dataclass(frozen=True)
class Fault:
    """What strikes a run, and when. With `ballast` the disk of that file is filled; else the run is sent a signal."""

    at_change: int | None = None
    after_seconds: float | None = None
    ballast: Path | None = None
    sent: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative where a signal ended it) and what it said on stderr.

    A run that was not killed also tells how many changes of files it made and its seconds of processor time.
    """

    code: int
    said: str
    n_changes: int = 0
    seconds: float = 0.0


def forker() -> ForkServerContext:
    """A context whose processes are forks of one that has imported all that a run needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.imported"])
    return context


class Run:
    """`mneme run planted` in a process of its own, begun at once."""

    def __init__(self, context: ForkServerContext, home: Path, fault: Fault | None = None) -> None:
        self._notes = home.parent / f"{home.name}-notes"  # beside the home, since the disk under the home may be full
        self._notes.mkdir(exist_ok=True)
        arguments = (home, self._notes, fault or Fault(), dict(os.environ))
        self._process: ForkServerProcess = context.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self._notes = self._notes / str(self._process.pid)

    def end(self) -> Ended:
        """Wait for it; raises TimeoutError where it hangs."""
        self._process.join(_PATIENCE_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise TimeoutError(f"a run has not ended after {_PATIENCE_SECONDS:g} s")
        facts = self._notes / "facts.json"
        said = self._notes / "stderr"
        return Ended(
            code,
            said.read_text() if said.exists() else "",
            **(json.loads(facts.read_text()) if facts.exists() else {}),
        )


def _run(home: Path, notes: Path, fault: Fault, environment: dict[str, str]) -> None:
    notes = notes / str(os.getpid())
    notes.mkdir()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        with (notes / name).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment | {"MNEME_HOME": str(home)})
    sys.argv = ["mneme", "run", "planted"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    counted = _strike(fault)
    code = _code_of_command()
    sys.stdout.flush()
    sys.stderr.flush()
    facts = {"n_changes": counted[0], "seconds": sum(os.times()[:2])}
    (notes / "facts.json").write_text(json.dumps(facts))
    os._exit(code)


def _code_of_command() -> int:
    from flows.cli.app import main

    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _strike(fault: Fault) -> list[int]:
    """Arrange for the fault; returns a list whose only entry counts the changes of files from now on."""
    counted = [0]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            counted[0] += 1
            if counted[0] != fault.at_change:
                return
            if fault.ballast is None:
                os.kill(os.getpid(), fault.sent)
            else:
                fill(fault.ballast)

    sys.addaudithook(watch)
    if fault.after_seconds is not None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process as SIGKILL does
        signal.setitimer(signal.ITIMER_PROF, fault.after_seconds)
    return counted
