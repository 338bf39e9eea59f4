"""MLflow's own database locked or damaged: one sentence, and what was recorded stays."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from storage.home import Home
from storage.mlflow_log import Recording, TrackingError, record_run

RECORDING = Recording("key", "study", "name", 1)


def test_a_locked_database_is_one_sentence_and_when_it_is_free_the_run_is_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = record_run(home, RECORDING)
    holder = sqlite3.connect(home.mlflow_database)
    holder.execute("begin exclusive")
    with pytest.raises(TrackingError, match=r"mlflow\.db does not answer .*database is locked.*: close what holds it"):
        record_run(home, RECORDING)
    holder.close()
    assert record_run(home, RECORDING) == first


def test_a_damaged_database_is_one_sentence_and_is_left_as_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.mlflow_database.write_bytes(b"x" * 4096)
    with pytest.raises(TrackingError, match=r"mlflow\.db does not answer .*not a database.*move it away") as refusal:
        record_run(home, RECORDING)
    assert "\n" not in str(refusal.value)
    assert home.mlflow_database.read_bytes() == b"x" * 4096
