"""A study of the steps of a training, end to end on a tiny recipe model: trained, probed at each step, published."""

from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from storage.rows import rows
from tasks.narrator import Silence, listening

STUDY = """
description: A tiny model over its training.
models: [small]
model_seeds: [3]
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


def run() -> dict[str, Any]:
    from flows.study import study

    return dict(study("steps"))


@pytest.fixture
def steps(home: Home, configs: Path, prefect_server: str) -> Home:
    (configs / "models" / "small.yaml").write_text(MODEL)
    (configs / "studies" / "steps.yaml").write_text(STUDY)
    return home


def test_a_study_of_steps_is_trained_probed_published_and_then_found(steps: Home) -> None:
    outcome = run()
    assert outcome["trials"] == {"delivered": 6}
    found = rows(steps, DYNAMICS)
    assert {(each["model"], each["model_seed"]) for each in found} == {("small", 3)}
    measured = {(each["variant"], each["step"], each["measure"]) for each in found}
    for step in (0, 4, 8):
        for measure in ("copy_loss", "previous_token", "previous_token_mean"):
            assert ("primary", step, measure) in measured
        assert ("training", step, "copy_accuracy") in measured
    assert {step for variant, step, measure in measured if (variant, measure) == ("training", "loss")} == {4, 8}
    assert rows(steps, "select * from mart.head_ranking") == []
    assert not [*steps.training.iterdir()]
    _mlflow_has_one_run_of_the_training_and_one_of_the_model_on_the_promptset(steps)
    _what_was_lost_is_made_again_and_nothing_else(steps, found)


def _what_was_lost_is_made_again_and_nothing_else(home: Home, found: list[dict[str, Any]]) -> None:
    (file,) = (home.lake / "training").glob("*.parquet")
    file.unlink()
    for path in home.store.rglob("checkpoints/step-4/model.safetensors"):
        path.write_bytes(b"damaged")
    again = run()
    assert (again["computed_trials"], again["forwards"]) == (0, 0)
    assert _without_speed(rows(home, DYNAMICS)) == _without_speed(found)


def _without_speed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in found if each["measure"] != "tokens_per_second"]


def _mlflow_has_one_run_of_the_training_and_one_of_the_model_on_the_promptset(home: Home) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    (training,) = client.search_runs([experiments["training"]])
    assert (training.info.status, training.data.tags["mlflow.runName"]) == ("FINISHED", "small[3]")
    assert [one.step for one in client.get_metric_history(training.info.run_id, "copy_accuracy")] == [0, 4, 8]
    (recorded,) = client.search_runs([experiments["steps"]])
    curve = client.get_metric_history(recorded.info.run_id, "copy_loss/copy_loss")
    assert sorted(one.step for one in curve) == [0, 4, 8]


class Heard(Silence):
    """Writes down what ended, and why."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []

    def end(self, label: str, outcome: str, why: str = "") -> None:
        self.ends.append((label, outcome, why))


def test_a_training_that_fails_is_tried_once_and_fails_the_trials_of_every_promptset(
    steps: Home, configs: Path
) -> None:
    from flows.troubles import TrialsFailed

    (configs / "models" / "small.yaml").write_text(MODEL.replace("max_period: 12", "max_period: 20"))
    two = STUDY.replace("[repeated_tokens]", "[repeated_tokens, shuffled_tokens]").replace("steps: [0, 4, 8]", "")
    (configs / "studies" / "steps.yaml").write_text(two)
    heard = Heard()
    with listening(heard), pytest.raises(TrialsFailed, match=r"4 of 4 trials .*induction_lm.max_period is 20"):
        run()
    trainings = [(outcome, why) for label, outcome, why in heard.ends if label.startswith("train")]
    assert len(trainings) == 1
    assert trainings[0][0] == "failed"
    assert "induction_lm.max_period is 20" in trainings[0][1]
