"""A stage: a Prefect task whose value is small sealed JSON, cached under a key that names everything it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.transactions import IsolationLevel

from mneme.errors import MnemeError
from storage.content import ContentStore, Damaged, Reference
from storage.entries import Entries, sealed, unsealed
from storage.home import Home
from tasks.kernel_locks import KernelLockManager
from tasks.ledger import Work, ledger
from tasks.narrator import listener

Value = dict[str, Any]


class Stage:
    """A cached stage around a plain function `body(home, **inputs) -> JSON value`.

    A value may hold `object`, a Reference into the content store: `run(..., use=True)` checks its files and computes
    the stage anew when one is missing, truncated or altered. `forwards` counts the forward passes the value cost.
    Two processes that need the same key compute it once: the second waits on a kernel lock and finds it cached.
    """

    def __init__(self, name: str, body: Callable[..., Value]) -> None:
        self.name = name
        self._body = body
        self._task: Task[..., Any] = task(
            name=name, task_run_name=name + ": {label}", persist_result=True, result_serializer="json"
        )(self._execute)

    def run(
        self, home: Home, key: str, label: str, inputs: Mapping[str, Any], *, use: bool = True, refresh: bool = False
    ) -> Value:
        """The stage's value, from the cache when it is there and whole; `use` says that its object will be read."""
        damaged = (home.entries / key).exists() and not is_whole(home, Entries(home.entries).read(key), use)
        listener().begin(f"{self.name}: {label}")
        count = len(ledger.all())
        outcome, why = "failed", ""
        try:
            record = self._bound(home, refresh or damaged)(home=home, key=key, label=label, inputs=dict(inputs))
            outcome = "computed" if any(work.key == key for work in ledger.all()[count:]) else "cached"
        except MnemeError as error:
            why = str(error)
            raise
        finally:
            listener().end(f"{self.name}: {label}", outcome, why)
        value = unsealed(record)
        if value is None:
            raise Damaged(f"entry {key} of stage {self.name} was altered while it was read")
        return value

    def _bound(self, home: Home, refresh: bool) -> Task[..., Any]:
        policy = CacheKeyFnPolicy(cache_key_fn=_key_of).configure(
            isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=KernelLockManager(home.locks / "stages")
        )
        return self._task.with_options(cache_policy=policy, result_storage=home.entries, refresh_cache=refresh)

    def _execute(self, home: Home, key: str, label: str, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        started = time.perf_counter()
        value = self._body(home, **inputs)
        seconds = time.perf_counter() - started
        ledger.add(Work(self.name, key, int(value.get("forwards", 0)), seconds))
        return sealed({"seconds": round(seconds, 3), **value, "stage": self.name})


def stage(name: str) -> Callable[[Callable[..., Value]], Stage]:
    """Make a function `(home, **inputs) -> value` a stage."""

    def decorate(body: Callable[..., Value]) -> Stage:
        return Stage(name, body)

    return decorate


def object_of(value: Value) -> Reference:
    """The reference that a stage's value holds."""
    return Reference.from_json(value["object"])


def is_whole(home: Home, value: Value | None, use: bool = True) -> bool:
    """Whether a value is there and, if its object will be used, every file of the object is what it was."""
    if value is None:
        return False
    if use and value.get("object"):
        try:
            ContentStore(home.store).folder(object_of(value))
        except Damaged:
            return False
    return True


def _key_of(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return str(parameters["key"])
