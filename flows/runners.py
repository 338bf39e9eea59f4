"""Where workers run: processes of this machine, or Ray. One task runner of Prefect is one worker."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from mneme.errors import BadInput

Kind = Literal["process", "ray"]
# Ray listens to the whole network unless this is 0 when it is imported; an address that it is given does not count
_RAY_REACHES_OUT = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class Runners(Protocol):
    """Makes workers."""

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """The errors of work whose worker is gone."""

    def worker(self) -> AbstractContextManager[TaskRunner[Any]]:
        """A runner that holds one worker; entered again, it holds a new one."""

    def submit_options(self) -> AbstractContextManager[Any]:
        """What holds while work is submitted."""

    def stop(self, futures: list[Any]) -> None:
        """End what works on these futures, now."""


@dataclass(frozen=True)
class Processes:
    """Each worker is a process of this machine, which ends when this one does."""

    lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def worker(self) -> AbstractContextManager[TaskRunner[Any]]:
        """A process, started when the first work is submitted."""
        return ProcessPoolTaskRunner(max_workers=1, initializer=_begin_process)

    def submit_options(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    def stop(self, futures: list[Any]) -> None:  # noqa: ARG002  the processes end, whatever they work on
        """Kill the processes: what they have stored is whole, and the kernel takes back their locks."""
        for process in multiprocessing.active_children():
            process.kill()


@dataclass(frozen=True)
class RayTasks:
    """Workers are Ray's: of the cluster that RAY_ADDRESS names, else of one that lasts as long as the study."""

    runner: TaskRunner[Any]
    lost: tuple[type[Exception], ...]

    def worker(self) -> AbstractContextManager[TaskRunner[Any]]:
        """The one runner that all workers share."""
        return nullcontext(self.runner)

    def submit_options(self) -> AbstractContextManager[Any]:
        """Ray itself tries nothing again: what kills a worker once kills it twice."""
        from prefect_ray.context import remote_options

        options: AbstractContextManager[Any] = remote_options(max_retries=0)
        return options

    def stop(self, futures: list[Any]) -> None:
        """Cancel the work by force."""
        import ray

        for future in futures:
            with suppress(ray.exceptions.RayError):
                ray.cancel(future.wrapped_future, force=True)


@contextmanager
def open_runners(kind: Kind, n_workers: int) -> Iterator[Runners]:
    """The runners of a kind, for at most `n_workers` at once."""
    if kind == "process":
        yield Processes()
        return
    own = {"address": "local", "num_cpus": n_workers, "include_dashboard": False}
    asked = {} if os.environ.get("RAY_ADDRESS") else own
    if asked:
        os.environ[_RAY_REACHES_OUT] = "0"
    import ray
    from prefect_ray import RayTaskRunner

    with RayTaskRunner(init_kwargs={"log_to_driver": False, **asked}) as runner:
        yield RayTasks(runner, (ray.exceptions.RayError,))


def refuse_absent_runner(kind: Kind) -> None:
    """Raises BadInput where the runner is not installed."""
    if kind == "ray" and importlib.util.find_spec("prefect_ray") is None:
        raise BadInput("`runner: ray` needs Ray, which is not installed: pip install 'mneme[ray]', or take `process`")


def _begin_process() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):  # what ends a whole group reaches the first process, which decides
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
