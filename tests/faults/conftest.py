"""A study that costs seconds, a process that forks runs of it, and what an undisturbed run of it leaves."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from storage.home import Home
from tests.faults.contents import contents, differences, lose_some
from tests.faults.runs import Ended, Fault, Run, forker
from tests.planted import copy_model, save

CLAIM = """
claims:
  some_head_copies:
    found: >-
      select layer * 4 + head as unit_id, score as value from mart.head_ranking where probe = 'induction' and rank <= 4
    expected: above
    margin: 0
    least_n: 4
    unit: fraction of attention
"""
STUDY = f"""
description: The planted copying model, a control, an intervention and a claim.
models: [planted]
promptsets: [repeated_tokens, non_repeated_tokens]
probes: [previous_token, induction, copy_accuracy, head_ablation]
overrides:
  promptsets.repeated_tokens.parameters.n_items: 6
  promptsets.repeated_tokens.parameters.period: 12
  promptsets.non_repeated_tokens.parameters.n_items: 6
  promptsets.non_repeated_tokens.parameters.period: 12
{CLAIM}"""
SMALL_STUDY = f"""
description: The planted copying model, an intervention and a claim.
models: [planted]
promptsets: [repeated_tokens]
probes: [induction, copy_accuracy, head_ablation]
overrides:
  promptsets.repeated_tokens.parameters.n_items: 6
  promptsets.repeated_tokens.parameters.period: 12
{CLAIM}"""


@dataclass(frozen=True)
class Calm:
    """An undisturbed home: its contents, and what a run takes that finds some of them: changes of files, seconds."""

    contents: dict[str, list[str]]
    n_changes: int
    seconds: float


@dataclass(frozen=True)
class Runs:
    """Runs of the study, one process each."""

    context: ForkServerContext

    def start(self, home: Home, fault: Fault | None = None) -> Run:
        """Begin a run in a home."""
        home.root.mkdir(exist_ok=True)
        return Run(self.context, home.root, fault)

    def run(self, home: Home, fault: Fault | None = None) -> Ended:
        """A run in a home, from its beginning to its end."""
        return self.start(home, fault).end()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Runs]:
    """Runs of the study `planted`, with configs of their own."""
    folder = tmp_path_factory.mktemp("faults")
    for kind in ("models", "promptsets", "probes", "studies"):
        (folder / "configs" / kind).mkdir(parents=True)
    planted = save(copy_model(), folder / "planted")
    (folder / "configs" / "models" / "planted.yaml").write_text(f"source: {{kind: local, path: {planted}}}\n")
    (folder / "configs" / "studies" / "planted.yaml").write_text(SMALL_STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNEME_CONFIGS", str(folder / "configs"))
        patch.setenv("PREFECT_API_URL", prefect_server)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Runs(forker())


@pytest.fixture(scope="session")
def calm(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """What nobody disturbed; seconds are of the processor."""
    home = Home(tmp_path_factory.mktemp("calm") / "home")
    first = runs.run(home)
    assert first.code == 0, first.said
    left = contents(home)
    lose_some(home, random.Random(0))
    again = runs.run(home)
    assert again.code == 0, again.said
    assert differences(contents(home), left) == {}
    return Calm(left, again.n_changes, again.seconds)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The home that is disturbed."""
    return Home(tmp_path / "home")


@pytest.fixture
def draw() -> random.Random:
    """Where and when faults strike: `FAULTS_SEED=7 make faults` draws others."""
    seed = int(os.environ.get("FAULTS_SEED", "0"))
    print(f"FAULTS_SEED={seed}")
    return random.Random(seed)
