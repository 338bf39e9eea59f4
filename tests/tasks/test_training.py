"""Training as a stage: its state below the home, one MLflow run, the steps that it kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mneme.errors import BadInput, NotApplicable
from storage.cleaning import UNFINISHED, free_unfinished, held
from storage.home import Home
from storage.locks import file_lock
from storage.mlflow_log import sweep_killed
from storage.specs import TrialSpec
from tasks.materialise import at_step
from tasks.training import forget_unfinished, workshop_in

SMALL = {"n_heads": 2, "width": 16, "vocabulary": 30, "length": 24, "min_period": 5, "max_period": 12}
ASKED = {
    "key": "materialise-abc",
    "label": "small[0]",
    "seed": 0,
    "source": {"recipe": "induction_lm", "parameters": {}},
}


@pytest.fixture(scope="module")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database, made once: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home(tmp_path: Path, mlflow_database: Path) -> Home:
    made = Home(tmp_path / "home")
    made.root.mkdir()
    shutil.copyfile(mlflow_database, made.mlflow_database)
    return made


def trial(step: int | None) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "model": "small",
            "model_spec": {"source": {"kind": "recipe", "recipe": "induction_lm"}},
            "model_seed": 0,
            "step": step,
            "promptset": "p",
            "promptset_spec": {"generator": "repeated_tokens"},
            "promptset_seed": 0,
            "probe": "induction",
            "variant": "primary",
            "parameters": {},
            "probe_seed": 0,
        }
    )


def trained() -> dict[str, Any]:
    kept = {str(step): {"part": f"checkpoints/step-{step}", "facts": step} for step in (0, 4)}
    return {"training": {"steps": 25}, "kept": kept, "facts": "finished"}


def runs(home: Home) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def logged_steps(home: Home, run_id: str) -> list[int]:
    from mlflow import MlflowClient

    history = MlflowClient(f"sqlite:///{home.mlflow_database}").get_metric_history(run_id, "loss")
    return [each.step for each in history]


def test_a_training_that_is_broken_off_goes_on_in_the_same_mlflow_run(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mneme.recipes import induction_lm

    def train(place: str, stop_in: int | None) -> list[int]:
        seen: list[int] = []

        def drawn(seed: int, step: int) -> Any:
            if seed != 0:  # held-out rows
                return draw(seed, step)
            seen.append(step)
            if step == stop_in:
                raise KeyboardInterrupt
            return draw(seed, step)

        monkeypatch.setattr(induction_lm, "batch_generator", drawn)
        with workshop_in(home, home.root / place, ASKED) as workshop:
            induction_lm.induction_lm(workshop, seed=0, max_steps=230, batch_size=2, stop_at=1.0, keep=[10], **SMALL)
        return seen

    draw = induction_lm.batch_generator
    with pytest.raises(KeyboardInterrupt):
        train("a", 207)
    state = home.training / "materialise-abc"
    assert json.loads((state / "training.json").read_text())["step"] == 200
    (killed,) = runs(home)
    assert killed.info.status == "KILLED"
    seen = train("b", None)
    assert min(step for step in seen if step) == 201
    (finished,) = runs(home)
    assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")
    assert finished.data.tags["mlflow.runName"] == "small[0]"
    assert logged_steps(home, finished.info.run_id) == [10, 25, 50, 75, 100, 125, 150, 175, 200, 225, 230]
    assert (home.root / "b" / "checkpoints" / "step-10" / "model.safetensors").is_file()
    forget_unfinished(home, "materialise-abc")
    assert not state.exists()


def test_an_abandoned_training_is_swept_as_killed(home: Home) -> None:
    from mlflow import MlflowClient

    with workshop_in(home, home.root / "a", ASKED) as workshop:
        workshop.log(1, {"loss": 2.0})
    (run,) = runs(home)
    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    client.update_run(run.info.run_id, status="RUNNING")  # as a process killed with -9 leaves it
    (home.locks / "mlflow" / "materialise-abc.open").touch()
    assert sweep_killed(home) == [run.info.run_id]
    (swept,) = runs(home)
    assert swept.info.status == "KILLED"


def test_a_training_that_fails_is_a_failed_run(home: Home) -> None:
    with pytest.raises(BadInput), workshop_in(home, home.root / "a", ASKED):
        raise BadInput("training diverged")
    (run,) = runs(home)
    assert run.info.status == "FAILED"


def test_unfinished_training_is_shown_and_freed_unless_a_process_works_on_it(home: Home) -> None:
    for name in ("one", "two"):
        (home.training / name).mkdir(parents=True)
        (home.training / name / "step-1.safetensors").write_bytes(b"x" * 100)
    (shown,) = (each for each in held(home) if each.stage == UNFINISHED)
    assert (shown.n_objects, shown.n_bytes) == (2, 200)
    with file_lock(home.locks / "training" / "two.lock"):
        forget_unfinished(home, "two")
        assert free_unfinished(home) == 100
    assert [path.name for path in home.training.iterdir()] == ["two"]
    assert free_unfinished(home) == 100


def test_a_step_of_a_training_is_a_part_of_its_object() -> None:
    assert at_step(trial(None), trained()) == trained()
    assert at_step(trial(4), trained()) == trained() | {"part": "checkpoints/step-4", "facts": 4}


def test_the_step_at_which_training_ended_is_the_finished_model() -> None:
    assert at_step(trial(25), trained()) == trained()


def test_a_step_after_the_end_of_training_makes_no_sense() -> None:
    with pytest.raises(NotApplicable, match=r"training ended at step 25: model small\[0\] has no step 26"):
        at_step(trial(26), trained())


def test_a_step_that_was_not_kept_is_refused_with_those_that_were() -> None:
    with pytest.raises(BadInput, match=r"model small does not keep step 5 of its training \(kept: 0, 4\)"):
        at_step(trial(5), trained())
