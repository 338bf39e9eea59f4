"""A study's home is backed up, restored somewhere else, and answers there without a forward pass."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

import duckdb
import pytest

from flows.cli.app import main
from storage.home import Home
from storage.rows import rows

pytestmark = pytest.mark.usefixtures("prefect_server", "own_environment")
SCORES = "select trial_id, probe, layer, head, item, value from mart.item_scores order by all"


class Said(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def mneme(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command of the study's home."""
    assert home.root.is_dir()

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["mneme", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        said = capsys.readouterr()
        return Said(int(leaving.value.code or 0), said.out, said.err)

    return run


def test_a_restored_home_answers_the_study_without_a_forward_pass(
    mneme: Command, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    mneme("run", "planted")
    before = rows(home, SCORES)
    backup, back = tmp_path / "b.tar", Home(tmp_path / "back")
    said = mneme("backup", str(backup))
    assert (said.code, said.out.split(": ")[0]) == (0, str(backup))
    assert "trace" not in said.out + said.err
    said = mneme("restore", str(backup), "--home", str(back.root))
    assert (said.code, said.err) == (0, "")
    assert f"{back.root}: " in said.out
    shutil.rmtree(home.root)  # nothing may be read from where it was
    assert rows(back, SCORES) == before

    monkeypatch.setenv("MNEME_HOME", str(back.root))
    assert "computed now: 0 trials, 0 forward passes" in mneme("run", "planted").out
    client = MlflowClient(f"sqlite:///{back.mlflow_database}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "planted"]
    (run,) = client.search_runs([experiment.experiment_id])
    artifacts = Path(unquote(urlparse(run.info.artifact_uri).path))
    assert artifacts.is_relative_to(back.mlflow_artifacts)
    assert "trials.json" in {each.path for each in client.list_artifacts(run.info.run_id)}


def test_a_home_is_never_restored_over_by_accident(mneme: Command, home: Home, tmp_path: Path) -> None:
    mneme("run", "planted")
    backup = tmp_path / "b.tar"
    mneme("backup", str(backup))
    said = mneme("restore", str(backup))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"mneme: {home.root} holds a home already: name another folder with --home")
    said = mneme("restore", str(backup), "--replace")
    assert said.code == 0
    assert f"what was there before lies in {home.root}.before-" in said.out
    assert mneme("backup", str(backup)).err == (
        f"mneme: {backup} is there already: name a new file, or a folder for one named after the time\n"
    )


def test_a_home_of_a_later_version_is_refused_before_anything_is_computed(mneme: Command, home: Home) -> None:
    mneme("run", "planted")
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("update raw.meta set value = '99' where name = 'layout'")
    files = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    for words in (("run", "planted", "--refresh", "all"), ("run", "planted", "--plan"), ("forget", "t")):
        said = mneme(*words)
        assert (said.code, said.out) == (1, "")
        assert "was written by a later version of Mneme (layout 99, this one knows" in said.err
        assert "update Mneme, or use another MNEME_HOME" in said.err
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()} == files
    said = mneme("doctor").out
    assert {"later", "(layout", "99,"} <= set(said.split())  # the table breaks lines where the path of the home ends
