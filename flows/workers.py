"""The models of a study, answered one after the other in this process or by workers that hold one model each."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner
from prefect.transactions import CommitMode, transaction

from flows.answers import Answered, Asking, answer_pairing, answered_without_rows
from flows.environment import prepare_environment
from flows.runners import Runners, open_runners
from mneme.errors import MnemeError
from storage.disk import DiskFull, is_full
from storage.home import Home
from storage.specs import TrialSpec
from storage.studies import Study
from tasks.ledger import Work, ledger
from tasks.models import release
from tasks.narrator import listening
from tasks.telling import Teller, retold

_STOP_SECONDS = 0.1
Group = list[TrialSpec]


class WorkerLost(MnemeError):
    """A worker ended before its work was done."""


@dataclass(frozen=True)
class Share:
    """What a worker made of one model: its answers, and what it really computed."""

    answered: list[Answered]
    work: list[Work]


def answer_models(home: Home, asking: Asking, asked: Study) -> list[Answered]:
    """Answer all trials of a study, in its order; its `workers` share the models among them.

    One worker is this process. A worker that is lost fails the trials of the model that it held, and the others go on;
    a full disk and Ctrl-C end all of them.
    """
    groups = _by_model(asked.trials)
    n_workers = min(asked.spec.workers, len(groups))
    if n_workers == 1 and asked.spec.runner == "process":
        shares = [_answer_model(home, asking, group) for group in groups]
        release()
    else:
        with open_runners(asked.spec.runner, n_workers) as runners, _shared_server(), retold(home) as told:
            shares = _Crew(home, asking, runners, told, _n_threads(n_workers)).answer(groups, n_workers)
    return [each for share in shares for each in share]


@task(name="answer model", persist_result=False, cache_policy=NO_CACHE)
def answer_model(home: Home, asking: Asking, trials: Group, told: Path, n_threads: int) -> Share:
    """Answer all trials of one model in a worker, which computes with `n_threads` and narrates to the file `told`."""
    return _share(home, asking, trials, told, n_threads)


def _share(home: Home, asking: Asking, trials: Group, told: Path, n_threads: int) -> Share:
    os.environ["OMP_NUM_THREADS"] = str(n_threads)  # torch reads it when a stage that computes imports it
    prepare_environment(home)
    ledger.reset()
    # inside a task Prefect would keep what its stages computed until the task ends: each commits its own
    with listening(Teller(told)), transaction(commit_mode=CommitMode.EAGER):
        answered = _answer_model(home, asking, trials)
    release()
    return Share(answered, ledger.all())


def _answer_model(home: Home, asking: Asking, trials: Group) -> list[Answered]:
    pairings = itertools.groupby(trials, key=lambda trial: trial.pairing_label)
    return [answer_pairing(home, asking, list(of_pairing)) for _, of_pairing in pairings]


def _by_model(trials: Sequence[TrialSpec]) -> list[Group]:
    """The trials of each model together, all its steps; models in the order of the study."""
    groups: dict[str, Group] = defaultdict(list)
    for trial in trials:
        groups[trial.finished_model_label].append(trial)
    return list(groups.values())


def _n_threads(n_workers: int) -> int:
    """The threads that each worker computes with: a share of what this process would take."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    n_all = int(named) if named.isdecimal() else os.cpu_count() or 1
    return max(1, n_all // n_workers)


@contextmanager
def _shared_server() -> Iterator[None]:
    """Workers talk to the Prefect server of this process: without its address each would start one of its own."""
    address = str(get_client(sync_client=True).api_url).rstrip("/")
    with temporary_settings({PREFECT_API_URL: address}):
        yield


@dataclass
class _Crew:
    """Threads of this process, each of which feeds one worker until no model waits."""

    home: Home
    asking: Asking
    runners: Runners
    told: Path
    n_threads: int
    _waiting: queue.SimpleQueue[tuple[int, Group]] = field(default_factory=queue.SimpleQueue)
    _answered: dict[int, list[Answered]] = field(default_factory=dict)
    _futures: dict[int, Any] = field(default_factory=dict)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def answer(self, groups: list[Group], n_workers: int) -> list[list[Answered]]:
        """The answers of each group, in their order."""
        for place, group in enumerate(groups):
            self._waiting.put((place, group))
        with ThreadPoolExecutor(n_workers) as threads:
            fed = [threads.submit(copy_context().run, self._feed) for _ in range(n_workers)]
            try:
                done, _ = wait(fed, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
            except BaseException:
                self._is_over.set()
                while wait(fed, timeout=_STOP_SECONDS).not_done:  # a process may have been on its way
                    self.runners.stop(list(self._futures.values()))
                raise
        return [self._answered[place] for place in range(len(groups))]

    def _feed(self) -> None:
        """Hand one model after the other to a worker, and to a new one where the worker was lost."""
        while not self._is_over.is_set():
            with self.runners.worker() as runner:
                while not self._is_over.is_set():
                    try:
                        place, group = self._waiting.get_nowait()
                    except queue.Empty:
                        return
                    if not self._is_answered(runner, place, group):
                        break

    def _is_answered(self, runner: TaskRunner[Any], place: int, group: Group) -> bool:
        """Let the worker answer a group; False where it was lost, and the group's trials have failed."""
        label = group[0].finished_model_label
        given = {"home": self.home, "asking": self.asking, "trials": group, "n_threads": self.n_threads}
        named = answer_model.with_options(task_run_name=f"answer: {label}")
        try:
            with self.runners.submit_options():
                self._futures[place] = runner.submit(named, {**given, "told": self.told / f"{place}.jsonl"})
            share: Share = self._futures[place].result()
        except self.runners.lost as error:
            if self._is_over.is_set():
                raise
            sentence = (
                f"the worker that answered {label} ended before its work was done ({type(error).__name__}), killed or "
                "out of memory: what it had stored is kept; run again, with fewer workers where memory is short"
            )
            self._answered[place] = [answered_without_rows(self.home, self.asking, group, WorkerLost(sentence))]
            return False
        except Exception as error:
            if is_full(error):
                raise DiskFull(self.home.root) from error
            raise
        for work in share.work:
            ledger.add(work)
        self._answered[place] = share.answered
        return True
