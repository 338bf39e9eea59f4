"""Four studies deliver into one home from four processes while two others read: no row lost or doubled, no error."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from storage.rows import rows
from tests.faults.contents import contents, differences
from tests.faults.runs import forker
from tests.planted import copy_model, save

N_READERS = 2
PAUSE_SECONDS = 0.1  # between two questions of a reader
PATIENCE_SECONDS = 1200.0
STUDIES = {  # `one` and `two` share trials, `one` and `three` a trace
    "one": "models: [planted]\nprobes: [previous_token, induction]\n",
    "two": "models: [planted, other]\nprobes: [induction]\n",
    "three": "models: [planted]\nprobes: [first_token_sink]\n",
    "four": "models: [other]\nprobes: [copy_accuracy]\n",
}
TAIL = """promptsets: [repeated_tokens]
overrides: {promptsets.repeated_tokens.parameters.n_items: 6, promptsets.repeated_tokens.parameters.period: 12}
"""
COUNTED = """
    select
        (select count(*) from mart.item_scores) as n_rows,
        (select count(*) from (select distinct trial_id, layer, head, item from mart.item_scores)) as n_distinct,
        (select count(*) from mart.trials) as n_trials
"""


def write(home: Path, studies: list[str], seconds: float, environment: dict[str, str]) -> None:
    """Run the studies once, then again and again, computed anew each time, until the seconds are over."""
    os.environ.update(environment | {"MNEME_HOME": str(home)})
    from flows.study import study

    began, n_runs = time.monotonic(), 0
    while n_runs == 0 or time.monotonic() - began < seconds:
        for name in studies:
            study(name, refresh=["all"] if n_runs else None)
        n_runs += 1
    note(home, studies[0], {"runs": n_runs})


def read(home: Path, place: int) -> None:
    """Ask the same question until the writers are done; note how often, and every error and doubled row."""
    n_queries, n_trials, wrong = 0, 0, []
    while not (home.parent / "over").exists():
        time.sleep(PAUSE_SECONDS)
        if not Home(home).results.exists():
            continue
        try:
            (found,) = rows(Home(home), COUNTED)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
            continue
        n_queries += 1
        if found["n_rows"] != found["n_distinct"] or found["n_trials"] < n_trials:
            wrong.append(str(found))
        n_trials = found["n_trials"]
    note(home, f"reader-{place}", {"queries": n_queries, "wrong": wrong})


def results(home: Path) -> dict[str, list[str]]:
    """What the home holds; which of two studies answered a trial last is a matter of time, and left out."""
    asked = (
        "select trial_id, delivery_id, status, forwards, list_sort(studies) as studies from mart.trials order by all"
    )
    return contents(Home(home)) | {"mart.trials": [str(row) for row in rows(Home(home), asked)]}


def note(home: Path, name: str, found: dict[str, Any]) -> None:
    (home.parent / f"{name}.json").write_text(json.dumps(found))


def noted(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.parent / f"{name}.json").read_text())
    return found


@pytest.fixture
def studies(configs: Path, tmp_path: Path) -> list[str]:
    """Two planted models and the four studies."""
    for name, scale in (("planted", 50.0), ("other", 25.0)):
        folder = save(copy_model(induction_scale=scale), tmp_path / name)
        (configs / "models" / f"{name}.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    for name, text in STUDIES.items():
        (configs / "studies" / f"{name}.yaml").write_text(text + TAIL)
    return list(STUDIES)


@pytest.mark.parametrize("seconds", [0, pytest.param(180, marks=pytest.mark.slow)])
def test_four_writers_and_two_readers_lose_and_double_nothing(
    studies: list[str], tmp_path: Path, prefect_server: str, seconds: float
) -> None:
    shared, calm = tmp_path / "shared" / "home", tmp_path / "calm" / "home"
    for each in (shared, calm):
        each.mkdir(parents=True)
    context, environment = forker(), {**os.environ, "PREFECT_API_URL": prefect_server}

    def start(target: Callable[..., None], *given: Any) -> Any:
        process = context.Process(target=target, args=given, daemon=True)
        process.start()
        return process

    writers = [start(write, shared, [name], seconds, environment) for name in studies]
    readers = [start(read, shared, place) for place in range(N_READERS)]
    began = time.monotonic()
    for process in writers:
        process.join(PATIENCE_SECONDS + seconds)
    took = time.monotonic() - began
    (shared.parent / "over").touch()
    for process in readers:
        process.join(60)
    assert [process.exitcode for process in (*writers, *readers)] == [0] * (len(writers) + N_READERS)

    undisturbed = start(write, calm, studies, 0, environment)
    undisturbed.join(PATIENCE_SECONDS)
    assert undisturbed.exitcode == 0
    assert differences(results(shared), results(calm)) == {}
    found = [noted(shared, f"reader-{place}") for place in range(N_READERS)]
    assert [each["wrong"] for each in found] == [[]] * N_READERS
    assert min(each["queries"] for each in found) > 0
    runs = [noted(shared, name)["runs"] for name in studies]
    n_queries = sum(each["queries"] for each in found)
    print(f"{sum(runs)} runs of {len(runs)} studies in {took:.0f} s, {n_queries} queries, nothing wrong")
