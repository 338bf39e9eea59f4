"""The lake names the MLflow run of each pairing, whatever became of its file."""

from __future__ import annotations

from pathlib import Path

from storage.home import Home
from storage.lake import RECORDINGS, Lake
from storage.studies import load_study
from tasks.record import deliver_recording


def test_a_recording_is_named_once_and_again_when_its_file_is_lost_torn_or_of_another_run(tmp_path: Path) -> None:
    home, (trial, *_) = Home(tmp_path), load_study("quickstart").trials
    lake = Lake(home.lake)
    assert deliver_recording(home, "s", trial, "one")
    assert not deliver_recording(home, "s", trial, "one")
    (name,) = lake.files(RECORDINGS)
    (home.lake / name).unlink()
    assert deliver_recording(home, "s", trial, "one")
    (home.lake / name).write_bytes((home.lake / name).read_bytes()[:-9])
    assert deliver_recording(home, "s", trial, "one")
    assert deliver_recording(home, "s", trial, "two")
    assert lake.files(RECORDINGS) == [name]
    rows = lake.rows(RECORDINGS, Path(name).stem)
    assert rows is not None
    assert rows["mlflow_run_id"].to_list() == ["two"]
    assert deliver_recording(home, "other study", trial, "one")
    assert len(lake.files(RECORDINGS)) == 2
