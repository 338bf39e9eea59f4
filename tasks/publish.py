"""Lake to warehouse to the readers' copy, as one task that may be tried again."""

from __future__ import annotations

from prefect import task
from storage.warehouse import Published
from storage.warehouse import publish as publish_home

from storage.home import Home


@task(name="publish", persist_result=False, retries=2, retry_delay_seconds=[1, 5])
def publish(home: Home) -> Published:
    """Merge what is new in the lake and replace `results.duckdb`."""
    return publish_home(home)
