"""A study of the steps of a training, end to end on a tiny recipe model: trained, probed at each step, published."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from storage.rows import rows

STUDY = """
description: A tiny model over its training.
models: [small]
model_seeds: [0, 1]
steps: [0, 4, 8]
promptsets: [repeated_tokens]
probes: [previous_token, copy_loss]
overrides:
  promptsets.repeated_tokens.parameters.n_items: 6
  promptsets.repeated_tokens.parameters.period: 8
"""
MODEL = """
source:
  kind: recipe
  recipe: induction_lm
  parameters: {n_heads: 2, width: 16, vocabulary: 30, length: 24, min_period: 5, max_period: 12, batch_size: 4,
    max_steps: 8, keep: [0, 4, 8], stop_at: 1.0}
bos_mode: native
"""
DYNAMICS = "select * from mart.dynamics order by all"


def run(study: str = "steps", settings: dict[str, Any] | None = None) -> dict[str, Any]:
    from flows.study import study as run_study

    return dict(run_study(study, settings))


@pytest.fixture
def steps(home: Home, configs: Path, prefect_server: str) -> Home:
    (configs / "models" / "small.yaml").write_text(MODEL)
    (configs / "studies" / "steps.yaml").write_text(STUDY)
    return home


def test_a_study_of_steps_is_trained_probed_published_and_then_found(steps: Home) -> None:
    outcome = run()
    assert outcome["trials"] == {"delivered": 12}
    found = rows(steps, DYNAMICS)
    probed = [each for each in found if each["variant"] == "primary"]
    measures = ("copy_loss", "previous_token", "previous_token_mean")
    assert sorted((each["model_seed"], each["step"], each["measure"]) for each in probed) == [
        (seed, step, measure) for seed in (0, 1) for step in (0, 4, 8) for measure in measures
    ]
    trained = {(each["model_seed"], each["step"], each["measure"]) for each in found if each["variant"] == "training"}
    assert trained >= {(seed, step, "copy_accuracy") for seed in (0, 1) for step in (0, 4, 8)}
    assert trained >= {(seed, step, "loss") for seed in (0, 1) for step in (4, 8)}
    assert rows(steps, "select * from mart.head_ranking") == []
    assert not [*steps.training.iterdir()]
    _the_same_study_again_computes_nothing(steps, found)
    _mlflow_has_one_run_per_training_and_one_per_model_and_promptset(steps)


def _the_same_study_again_computes_nothing(home: Home, found: list[dict[str, Any]]) -> None:
    again = run()
    assert (again["computed_trials"], again["forwards"]) == (0, 0)
    assert rows(home, DYNAMICS) == found


def _mlflow_has_one_run_per_training_and_one_per_model_and_promptset(home: Home) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    trainings = client.search_runs([experiments["training"]])
    assert {(each.info.status, each.data.tags["mlflow.runName"]) for each in trainings} == {
        ("FINISHED", "small[0]"),
        ("FINISHED", "small[1]"),
    }
    for each in trainings:
        assert [one.step for one in client.get_metric_history(each.info.run_id, "copy_accuracy")] == [0, 4, 8]
    recorded = client.search_runs([experiments["steps"]])
    assert len(recorded) == 2
    for each in recorded:
        curve = client.get_metric_history(each.info.run_id, "copy_loss/copy_loss")
        assert sorted(one.step for one in curve) == [0, 4, 8]


def test_the_last_step_is_the_finished_model_and_a_step_after_the_end_does_not_apply(steps: Home) -> None:
    # stops at its first check, after 25 of 60 steps
    settings = {
        "models.small.source.parameters.max_steps": 60,
        "models.small.source.parameters.keep": [0, 50],
        "models.small.source.parameters.stop_at": 0.0,
        "model_seeds": [0],
        "steps": [0, 50],
    }
    outcome = run(settings=settings)
    assert outcome["trials"] == {"delivered": 2, "not_applicable": 2}
    refused = rows(steps, "select distinct step, error from mart.trials where status = 'not_applicable'")
    assert refused == [{"step": 50, "error": "training ended at step 25: model small[0] has no step 50"}]


def test_damaged_weights_of_a_step_are_trained_again(steps: Home) -> None:
    run(settings={"model_seeds": [0], "probes": ["previous_token"]})
    for path in steps.store.rglob("checkpoints/step-4/model.safetensors"):
        path.write_bytes(b"damaged")
    assert run(settings={"model_seeds": [0], "probes": ["copy_loss"]})["trials"] == {"delivered": 3}


def test_measures_of_a_training_come_back_when_their_lake_file_is_gone(steps: Home) -> None:
    settings = {"model_seeds": [0], "steps": [8]}
    run(settings=settings)
    before = rows(steps, DYNAMICS)
    (file,) = (steps.lake / "training").glob("*.parquet")
    file.unlink()
    assert run(settings=settings)["computed_trials"] == 0
    assert rows(steps, DYNAMICS) == before


def test_a_training_that_was_broken_off_goes_on_in_the_same_mlflow_run(
    steps: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from mneme.recipes import induction_lm
    from tasks.ledger import ledger

    settings = {
        "models.small.source.parameters.max_steps": 230,
        "models.small.source.parameters.keep": [0, 210],
        "model_seeds": [0],
        "steps": [210],
    }
    seen: list[int] = []

    def drawn(seed: int, step: int) -> Any:
        seen.append(step)
        if len(seen) == 215:
            raise KeyboardInterrupt
        return draw(seed, step)

    draw = induction_lm.batch_generator
    monkeypatch.setattr(induction_lm, "batch_generator", drawn)
    with pytest.raises(KeyboardInterrupt):
        run(settings=settings)
    (state,) = steps.training.iterdir()
    assert json.loads((state / "training.json").read_text())["step"] == 200
    client = MlflowClient(f"sqlite:///{steps.mlflow_database}")
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == "training")
    (killed,) = client.search_runs([experiment])
    assert killed.info.status == "KILLED"
    ledger.reset()
    assert run(settings=settings)["trials"] == {"delivered": 2}
    (finished,) = client.search_runs([experiment])
    assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")
    logged = [each.step for each in client.get_metric_history(finished.info.run_id, "loss")]
    assert logged == [25, 50, 75, 100, 125, 150, 175, 200, 210, 225, 230]
    measured = rows(steps, "select step from raw.training where measure = 'loss' order by step")
    assert [each["step"] for each in measured] == logged
