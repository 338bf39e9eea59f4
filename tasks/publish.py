"""Lake to warehouse to the readers' copy, as one task that may be tried again."""

from __future__ import annotations

from typing import Any

from prefect import task

from storage.duck import WarehouseBusy
from storage.home import Home
from storage.warehouse import Published
from storage.warehouse import publish as publish_home


def _is_busy(_task: Any, _run: Any, state: Any) -> bool:
    """Whether the warehouse was only in use: everything else stays as it is however often it is tried."""
    return isinstance(state.result(raise_on_failure=False), WarehouseBusy)


@task(name="publish", persist_result=False, retries=2, retry_delay_seconds=[1, 5], retry_condition_fn=_is_busy)
def publish(home: Home, *, recheck: bool = False) -> Published:
    """Merge what is new in the lake and replace `results.duckdb`; `recheck` trusts no file and no earlier check."""
    return publish_home(home, recheck=recheck)
