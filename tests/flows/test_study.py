"""The study from YAML to SQL: right numbers, nothing twice, nothing stale, nothing lost."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import mneme
from flows.study import study
from flows.troubles import TrialsFailed
from storage import identity
from storage.entries import value_in
from storage.home import Home
from storage.rows import rows
from tests.planted import INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD

pytestmark = pytest.mark.usefixtures("prefect_server")
SCORES = "select probe, layer, head, item, value from mart.item_scores order by all"


def run(home: Home, **options: Any) -> dict[str, Any]:
    del home  # named so that no test runs outside its own home
    outcome: dict[str, Any] = study("planted", **options)
    return outcome


def test_planted_heads_score_one_down_to_sql(home: Home) -> None:
    outcome = run(home)
    assert outcome["trials"] == {"delivered": 3}
    heads = {
        (each["probe"], each["layer"], each["head"]): each["score"]
        for each in rows(home, "select probe, layer, head, score from mart.head_ranking")
    }
    assert heads["previous_token", *PREVIOUS_TOKEN_HEAD] == pytest.approx(1, abs=1e-2)
    assert heads["induction", *INDUCTION_HEAD] == pytest.approx(1, abs=1e-2)
    assert sum(score > 0.9 for score in heads.values()) == 2
    (behavior,) = rows(home, "select accuracy, n_items from mart.behavior")
    assert behavior == {"accuracy": 1.0, "n_items": 6}


def test_a_second_run_computes_nothing_and_changes_nothing(home: Home) -> None:
    first = run(home)
    before = rows(home, SCORES)
    assert first["forwards"] > 0
    second = run(home)
    assert (second["forwards"], second["computed_trials"]) == (0, 0)
    assert rows(home, SCORES) == before


@pytest.mark.parametrize("is_trace_lost", [False, True])
def test_a_delivery_made_anew_from_stored_items_tells_the_cost_of_the_first(home: Home, is_trace_lost: bool) -> None:
    costs = "select trial_id, forwards, seconds from mart.trials order by all"
    run(home)
    before = rows(home, costs)
    assert [each["forwards"] > 0 for each in before] == [True] * 3
    shutil.rmtree(home.lake)
    traces = [path for path in home.entries.iterdir() if (value_in(path.read_bytes()) or {}).get("stage") == "trace"]
    assert traces
    for path in traces if is_trace_lost else []:
        path.unlink()
    assert run(home)["forwards"] == 0
    assert rows(home, costs) == before


def test_refresh_computes_the_named_trials_only(home: Home) -> None:
    run(home)
    assert run(home, refresh=["induction"])["computed_trials"] == 1


def test_a_new_probe_on_a_stored_trace_costs_no_forward_pass(home: Home) -> None:
    run(home)
    outcome = run(home, settings={"probes": ["previous_token", "duplicate_token"]})
    assert (outcome["computed_trials"], outcome["forwards"]) == (1, 0)


def test_an_edited_formula_is_computed_anew_and_a_comment_is_not(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "edited" / "mneme"
    shutil.copytree(next(iter(mneme.__path__)), copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_ROOT", copied)
    run(home)
    probe = copied / "probes" / "induction.py"
    probe.write_text(probe.read_text() + "\n# a thought\n")
    assert run(home)["computed_trials"] == 0
    probe.write_text(probe.read_text() + "\nSTRETCH = 2\n")
    assert run(home)["computed_trials"] == 1
    history = rows(home, "select trial_id from raw.trials where probe = 'induction'")
    current = rows(home, "select trial_id from mart.trials where probe = 'induction'")
    assert (len(history), len(current)) == (2, 1)


def test_an_edited_helper_recomputes_exactly_the_trials_that_use_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "edited" / "mneme"
    shutil.copytree(next(iter(mneme.__path__)), copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_ROOT", copied)
    run(home)
    helper = copied / "copies.py"
    helper.write_text(helper.read_text() + "\nSTRETCH = 2\n")
    used_by = [
        name
        for name in ("previous_token", "induction", "copy_accuracy")
        if "mneme.copies" in identity.code_parts([f"mneme.probes.{name}"])
    ]
    assert used_by
    assert run(home)["computed_trials"] == len(used_by)


def test_an_edited_probe_recomputes_the_ablation_that_takes_its_heads(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "edited" / "mneme"
    shutil.copytree(next(iter(mneme.__path__)), copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_ROOT", copied)
    settings = {
        "probes": ["previous_token", "induction", "head_ablation"],
        "probes.head_ablation.parameters.ks": [1],
        "probes.head_ablation.parameters.n_draws": 2,
    }
    run(home, settings=settings)
    probe = copied / "probes" / "induction.py"
    probe.write_text(probe.read_text() + "\nSTRETCH = 2\n")
    assert run(home, settings=settings)["computed_trials"] == 2


@pytest.mark.parametrize("seed", range(4))
def test_harm_to_any_stored_file_never_changes_a_number(home: Home, seed: int) -> None:
    run(home)
    before = rows(home, SCORES)
    rng = random.Random(seed)
    victims = [path for path in [*home.store.rglob("*"), *home.lake.rglob("*")] if path.is_file()]
    for victim in rng.sample(sorted(victims), len(victims) // 2):
        content = victim.read_bytes()
        harm = rng.choice(["delete", "truncate", "flip"])
        if harm == "delete":
            victim.unlink()
        elif harm == "truncate":
            victim.write_bytes(content[: len(content) // 2])
        else:
            at = rng.randrange(max(len(content), 1))
            victim.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"x")
    run(home)
    assert rows(home, SCORES) == before


def test_a_lost_warehouse_is_rebuilt_from_the_lake(home: Home) -> None:
    from storage.warehouse import rebuild

    run(home)
    before = rows(home, SCORES)
    home.warehouse.unlink()
    home.results.unlink()
    rebuild(home)
    assert rows(home, SCORES) == before


def test_a_failed_trial_is_recorded_and_the_others_go_on(home: Home, configs: Path) -> None:
    (configs / "models" / "broken.yaml").write_text("source: {kind: local, path: nowhere}\n")
    with pytest.raises(TrialsFailed, match="nowhere"):
        run(home, settings={"models": ["broken", "planted"]})
    found = rows(home, "select model, status, error from mart.trials order by model, probe")
    assert [each["status"] for each in found] == ["failed"] * 3 + ["delivered"] * 3
    assert "nowhere" in found[0]["error"]


def test_what_makes_no_sense_is_not_applicable_and_no_failure(home: Home) -> None:
    outcome = run(home, settings={"promptsets": ["natural_text"], "overrides": {}})
    assert outcome["trials"] == {"not_applicable": 3}
    assert "tokenizer" in rows(home, "select error from mart.trials")[0]["error"]


def test_mlflow_has_one_finished_run_per_pairing_however_often_it_is_asked(home: Home) -> None:
    from mlflow import MlflowClient

    run(home)
    run(home)
    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "planted"]
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["induction/max"] == pytest.approx(1, abs=1e-2)
    artifacts = {each.path for each in client.list_artifacts(logged.info.run_id)}
    assert {"trials.json", "heat_maps", "planted.html"} <= artifacts
    assert logged.inputs.dataset_inputs[0].dataset.name == "repeated_tokens"
    (trial, *_) = rows(home, "select mlflow_run_id from mart.trials")
    assert trial["mlflow_run_id"] == logged.info.run_id


def test_every_stored_entry_is_json(home: Home) -> None:
    run(home)
    for path in home.entries.iterdir():
        json.loads(path.read_text())
