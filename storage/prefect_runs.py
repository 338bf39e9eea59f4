"""What a Prefect server says of runs that nobody watches: those that are late, and deployments whose last run failed.

Asked over its REST interface: this room knows no orchestration.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from typing import Any

_SECONDS = 10.0  # a server under load takes some
_ENDED = ["COMPLETED", "FAILED", "CRASHED"]
_MOST = 200


class NoServer(Exception):
    """The server does not answer, or not as Prefect does."""


def late_runs(address: str) -> list[str]:
    """One sentence for each flow run that should have begun and has not, by the name of its deployment."""
    names = {each["id"]: each["name"] for each in _asked(address, "deployments/filter", {"limit": _MOST})}
    found = _asked(address, "flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}, "limit": _MOST})
    return [
        f"{names.get(each['deployment_id'], each['name'])}: a run was due at {_moment(each['expected_start_time'])}"
        " and has not begun"
        for each in found
    ]


def failed_deployments(address: str) -> list[str]:
    """One sentence for each deployment whose last ended run failed or crashed, with what the run said."""
    sentences = []
    for deployment in _asked(address, "deployments/filter", {"limit": _MOST}):
        of_this = {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": _ENDED}}}
        wanted = {"flow_runs": of_this, "sort": "END_TIME_DESC", "limit": 1}
        for run in _asked(address, "flow_runs/filter", wanted):
            if run["state_type"] != "COMPLETED":
                said = run["state"].get("message") or "no reason given"
                sentences.append(
                    f"{deployment['name']}: {run['name']} {run['state_type'].lower()}"
                    f" at {_moment(run['end_time'])}: {said}"
                )
    return sentences


def _asked(address: str, path: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Content-Type": "application/json", **_credentials()}
    request = urllib.request.Request(  # noqa: S310  the user's own address
        f"{address.rstrip('/')}/{path}", json.dumps(wanted).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            found = json.load(answer)
    except (OSError, ValueError) as error:
        raise NoServer(str(error)) from error
    if not isinstance(found, list):
        raise NoServer("the answer is no list")
    return found


def _credentials() -> dict[str, str]:
    """The header that Prefect's own client would send."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _moment(text: str | None) -> str:
    """A time to the minute, in UTC as the server gives it."""
    return "an unknown time" if not text else f"{text[:16].replace('T', ' ')} UTC"
