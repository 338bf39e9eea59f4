"""The warehouse's promises, checked: every lake file read, the views built anew, every promise asked again."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow

from flows.environment import prepare_environment
from flows.troubles import PromisesBroken
from storage.home import writable_home
from tasks.publish import publish

_logger = logging.getLogger("mneme")


@flow(name="promises", flow_run_name="promises", persist_result=False)
def promises() -> dict[str, Any]:
    """Compare every lake file with its checksum, merge the lake, build the views anew and check what they promise.

    Returns how many lake files came in and what was set aside as damaged. Raises PromisesBroken, naming each promise,
    when one does not hold; readers have the results all the same.
    """
    home = writable_home()
    prepare_environment(home)  # a worker has not been through `mneme run`
    published = publish(home, recheck=True)
    for warning in published.warnings:
        _logger.warning(warning)
    outcome = {"merged": published.n_files_merged, "warnings": list(published.warnings)}
    if published.promises_broken:
        raise PromisesBroken("; ".join(published.promises_broken), outcome)
    return outcome
