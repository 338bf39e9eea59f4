"""What a test asks of a Prefect server over its REST interface."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

_PATIENCE_SECONDS = 900.0
Flow = dict[str, Any]


class Prefect:
    """The runs of one deployment, by REST."""

    def __init__(self, api: str, flow: str, deployment: str) -> None:
        self.api = api
        self.id = str(self._asked("GET", f"deployments/name/{flow}/{deployment}")["id"])

    def run_now(self) -> Flow:
        """Ask for a run of the deployment and wait for its end."""
        begun = self.begin()
        wait_for(lambda: self.run(begun)["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
        return self.run(begun)

    def begin(self) -> str:
        """Ask for a run of the deployment; returns its id."""
        return str(self._asked("POST", f"deployments/{self.id}/create_flow_run", {})["id"])

    def run(self, flow_run_id: str) -> Flow:
        """One run as it stands."""
        return dict(self._asked("GET", f"flow_runs/{flow_run_id}"))

    def every(self, seconds: int) -> None:
        """Give the deployment a schedule, in the place of its own."""
        for each in self._asked("GET", f"deployments/{self.id}/schedules"):
            self._asked("DELETE", f"deployments/{self.id}/schedules/{each['id']}")
        schedule = {"active": True, "schedule": {"interval": seconds}}
        self._asked("POST", f"deployments/{self.id}/schedules", [schedule])

    def never(self) -> None:
        """Take the schedule away, and with it the runs that have not begun."""
        for each in self._asked("GET", f"deployments/{self.id}/schedules"):
            self._asked("DELETE", f"deployments/{self.id}/schedules/{each['id']}")

    def states(self) -> Counter[str]:
        """How many runs of the deployment are in each state, by its name."""
        return Counter(str(each["state"]["name"]) for each in self.runs())

    def runs(self) -> list[Flow]:
        """All runs of the deployment, by the time that they were due."""
        wanted = {"deployments": {"id": {"any_": [self.id]}}, "limit": 200, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self._asked("POST", "flow_runs/filter", wanted))

    def messages(self, state: str) -> dict[str, str]:
        """What Prefect's events say of runs that came into a state of that name: the state's message by flow run."""
        wanted = {"filter": {"event": {"name": [f"prefect.flow-run.{state}"]}}, "limit": 50}
        found = [each["resource"] for each in self._asked("POST", "events/filter", wanted)["events"]]
        return {
            each["prefect.resource.id"].removeprefix("prefect.flow-run."): each["prefect.state-message"]
            for each in found
        }

    def _asked(self, method: str, path: str, wanted: Any = None) -> Any:
        data = None if wanted is None else json.dumps(wanted).encode()
        request = urllib.request.Request(
            f"{self.api}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; raises TimeoutError where it never comes."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError("it did not come")
        time.sleep(1.0)
