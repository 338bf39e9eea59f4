"""Every file of configs/models, read as the studies read it."""

import re
from pathlib import Path
from typing import cast

import pytest

from storage.config_files import read_spec
from storage.specs import ModelSpec

FILES = sorted((Path(__file__).resolve().parent.parent / "configs" / "models").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return cast(Path, request.param)


def test_a_model_file_is_a_described_model_spec_with_a_plain_name(path: Path) -> None:
    spec = read_spec("models", path.stem)
    assert isinstance(spec, ModelSpec)
    assert spec.description
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", path.stem)


def test_no_model_file_holds_a_commit_hash(path: Path) -> None:
    assert re.search(r"\b[0-9a-f]{40}\b", path.read_text()) is None


def test_pythia_models_name_the_revisions_of_their_steps(path: Path) -> None:
    spec = cast(ModelSpec, read_spec("models", path.stem))
    assert (spec.step_revision == "step{step}") == path.stem.startswith("pythia-")
