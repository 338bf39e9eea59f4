"""prefect.yaml without a server: what is deployed exists, takes its parameters, and never overlaps itself."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from storage.config_files import config_names

ROOT = Path(__file__).resolve().parent.parent
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def entrypoint(deployment: dict[str, Any]) -> Any:
    path, name = deployment["entrypoint"].split(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def test_a_study_every_night_and_the_promises_every_week_are_scheduled() -> None:
    schedules = {each["name"]: [one["cron"] for one in each.get("schedules", [])] for each in DEPLOYMENTS}
    assert schedules == {"nightly": ["0 2 * * *"], "weekly": ["0 4 * * 0"], "dynamics": []}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: str(each["name"]))
def test_a_deployment_names_a_flow_that_takes_its_parameters(deployment: dict[str, Any]) -> None:
    flow, parameters = entrypoint(deployment), deployment.get("parameters", {})
    assert flow.name == Path(deployment["entrypoint"].split(":")[0]).stem
    inspect.signature(flow.fn).bind(**parameters)
    assert set(parameters.values()) <= set(config_names("studies"))


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: str(each["name"]))
def test_runs_of_a_deployment_never_overlap_and_never_queue_up(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    for schedule in deployment.get("schedules", []):
        assert CronSchedule(**schedule).timezone == "UTC"
