"""Models shared out among worker processes: the rows of one process, and no model lost with another's worker."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from flows.environment import prepare_environment
from flows.runners import open_runners
from flows.study import study
from mneme.errors import BadInput
from storage.home import Home
from storage.rows import rows
from tasks.narrator import listening
from tests.planted import copy_model, save

pytestmark = pytest.mark.usefixtures("prefect_server")
with_ray = pytest.mark.skipif(
    importlib.util.find_spec("prefect_ray") is None, reason="Ray is not installed: pip install 'mneme[ray]'"
)
SCORES = "select model, probe, layer, head, item, value from mart.item_scores order by all"
TRIALS = "select trial_id, model, probe, status, forwards from mart.trials order by all"


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def begin(self, label: str) -> None:
        self.said.append(("begin", label))

    def advance(self, label: str, done: int, total: int, note: str) -> None:
        self.said.append(("advance", label))

    def end(self, label: str, outcome: str, why: str = "") -> None:
        self.said.append((outcome, label, why))


@pytest.fixture
def two_models(home: Home, configs: Path, tmp_path: Path) -> Home:
    """The study `planted` on two models."""
    folder = save(copy_model(induction_scale=25.0), tmp_path / "other")
    (configs / "models" / "other.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    text = (configs / "studies" / "planted.yaml").read_text()
    (configs / "studies" / "planted.yaml").write_text(text.replace("[planted]", "[planted, other]"))
    return home


def run(**settings: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = study("planted", settings=settings)
    return outcome


def test_two_workers_deliver_the_rows_of_one_process(
    two_models: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    with listening(heard):
        shared = run(workers=2)
    told = {label for outcome, label, *_ in heard.said if outcome == "computed"}
    assert {
        "measure: planted / repeated_tokens[0] / induction",
        "measure: other / repeated_tokens[0] / induction",
    } <= told
    assert [*two_models.runs.glob("told-*")] == []
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "alone"))
    alone = run()
    same = ("trials", "computed_trials", "forwards", "trial_ids")
    assert {name: shared[name] for name in same} == {name: alone[name] for name in same}
    assert shared["forwards"] > 0
    assert rows(two_models, SCORES) == rows(Home(tmp_path / "alone"), SCORES)
    assert rows(two_models, TRIALS) == rows(Home(tmp_path / "alone"), TRIALS)


def test_a_study_for_ray_is_refused_where_ray_is_missing(two_models: Home) -> None:
    if importlib.util.find_spec("prefect_ray"):
        pytest.skip("Ray is installed here")
    with pytest.raises(BadInput, match="needs Ray, which is not installed: pip install 'mneme\\[ray\\]'"):
        run(runner="ray")


@with_ray
def test_a_ray_of_our_own_listens_on_loopback_alone_and_gives_its_workers_our_place(
    home: Home, own_environment: None
) -> None:
    del own_environment
    prepare_environment(home)
    with open_runners("ray", 1):
        import ray

        port = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        with pytest.raises(ConnectionRefusedError):  # what listens to the whole network answers here, too
            socket.create_connection(("127.0.0.2", port), timeout=30)
        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


@with_ray
def test_two_workers_of_ray_deliver_the_rows_of_one_process(
    two_models: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_ray = run(workers=2, runner="ray")
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "alone"))
    alone = run()
    assert (on_ray["trials"], on_ray["forwards"]) == (alone["trials"], alone["forwards"])
    assert rows(two_models, SCORES) == rows(Home(tmp_path / "alone"), SCORES)
