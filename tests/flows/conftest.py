"""A planted model in a study of its own: the whole pipeline in seconds."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.home import Home
from tests.planted import copy_model, save

STUDY = """
description: The planted copying model.
models: [planted]
promptsets: [repeated_tokens]
probes: [previous_token, induction, copy_accuracy]
overrides:
  promptsets.repeated_tokens.parameters.n_items: 6
  promptsets.repeated_tokens.parameters.period: 12
"""


@pytest.fixture(scope="session")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model as a `save_pretrained` folder."""
    return save(copy_model(), tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database, made once: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configs: Path, planted_folder: Path, mlflow_database: Path
) -> Home:
    """An empty home, and configs with the study `planted`."""
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "home"))
    (configs / "models" / "planted.yaml").write_text(f"source: {{kind: local, path: {planted_folder}}}\n")
    (configs / "studies" / "planted.yaml").write_text(STUDY)
    made = Home(tmp_path / "home")
    made.root.mkdir()
    shutil.copyfile(mlflow_database, made.mlflow_database)
    return made


@pytest.fixture
def own_environment() -> Iterator[None]:
    """Undo what a command sets for its process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
