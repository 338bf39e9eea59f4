"""The dynamics of a training: a study whose models are probed after each of its steps."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.study import study as answer_study
from mneme.errors import BadInput
from storage.studies import load_study


@flow(name="dynamics", flow_run_name="dynamics {study}", persist_result=False)
def dynamics(study: str, settings: dict[str, Any] | None = None, refresh: list[str] | None = None) -> dict[str, Any]:
    """Run a study with `steps`: probes at each step, then phase changes, claims and the page.

    Returns and raises what `flows.study.study` does; raises BadInput for a study without steps, before any compute.
    """
    if not load_study(study, settings or {}).spec.steps:
        raise BadInput(
            f"study {study} has no steps to follow: give it `steps: [0, 1, 2, 4, ...]`, or run it as a study"
        )
    outcome: dict[str, Any] = answer_study(study, settings=settings, refresh=refresh)
    return outcome
