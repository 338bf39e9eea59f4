"""What watches over a run of a study: a note of how it went, the comparison with the run before, a mark in MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from prefect.context import FlowRunContext
from prefect.runtime import deployment

from flows.troubles import RunTroubled, troubles_of
from storage.drift import broken_promises_now, moved_between
from storage.home import Home
from storage.redacting import redacted
from storage.study_runs import COMPLETED, FAILED, INTERRUPTED, StudyRun, new_run, utc_now, write_run
from tasks.record import record_trouble


@dataclass
class Watch:
    """One run of a study, under way."""

    home: Home
    run: StudyRun

    def judge(self, outcome: dict[str, Any], failed: list[tuple[str, str]], until: str) -> dict[str, Any]:
        """The outcome with the trials whose numbers moved; raises RunTroubled when something is wrong.

        `failed` holds label and error of each failed trial; `until` is a moment before the last answers were published.
        """
        moved = moved_between(self.home, self.run.study, self.run.compared_until, until)
        self.run = replace(self.run, compared_until=until)
        outcome = {**outcome, "moved_trial_ids": sorted({row["trial_id"] for row in moved})}
        trouble = troubles_of(outcome, failed, broken_promises_now(self.home), moved)
        if trouble is not None:
            raise trouble
        return outcome


@contextmanager
def watched(home: Home, study: str) -> Iterator[Watch]:
    """Note that a run begins and how it ends; a troubled run of a deployment is marked in MLflow, too."""
    context = FlowRunContext.get()
    flow_run = None if context is None else context.flow_run
    watch = Watch(home, new_run(home, study, None if flow_run is None else str(flow_run.id)))
    write_run(home, watch.run)
    try:
        yield watch
    except BaseException as error:
        state = error.state if isinstance(error, RunTroubled) else FAILED
        state = state if isinstance(error, Exception) else INTERRUPTED
        with suppress(OSError):  # a full disk is the error on its way
            _end(watch, state, redacted(f"{type(error).__name__}: {error}"))
        if isinstance(error, RunTroubled) and deployment.id:
            record_trouble(home, watch.run, error.outcome)
        raise
    _end(watch, COMPLETED, None)


def _end(watch: Watch, state: str, sentence: str | None) -> None:
    watch.run = replace(watch.run, state=state, sentence=sentence, ended_at=utc_now())
    write_run(watch.home, watch.run)
