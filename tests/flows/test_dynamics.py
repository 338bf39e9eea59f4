"""A study with steps and claims, end to end: phase changes, verdicts, the page, MLflow, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.dynamics import dynamics
from flows.study import study
from mneme.errors import BadInput
from storage.home import Home
from storage.rows import rows
from tasks.ledger import ledger
from tests.flows.conftest import STUDY as PLANTED
from tests.planted import INDUCTION_HEAD

pytestmark = pytest.mark.usefixtures("prefect_server")
MODEL = """
source:
  kind: recipe
  recipe: induction_lm
  parameters: {n_heads: 2, width: 16, vocabulary: 30, length: 24, min_period: 5, max_period: 12, batch_size: 4,
    max_steps: 5, keep: [0, 1, 2, 3, 4, 5], stop_at: 1.0}
"""
STUDY = """
models: [small]
steps: [0, 1, 2, 3, 4, 5]
promptsets: [repeated_tokens]
probes: [induction]
phase_changes: {measures: [induction]}
claims:
  no_jump_in_five_steps:
    found: select model_seed as unit_id, verdict = 'none' as value from mart.phase_changes
    expected: above
    unit: share of curves
  attention_is_a_share:
    description: No step gives more attention than there is.
    found: select step as unit_id, value from mart.dynamics where measure = 'induction'
    expected: within
    margin: 1.01
    unit: fraction of attention
overrides:
  promptsets.repeated_tokens.parameters.n_items: 4
  promptsets.repeated_tokens.parameters.period: 8
"""
ITEMS = "select item as unit_id, value from mart.item_scores where probe = 'induction' and layer = {} and head = {}"
CLAIMS = f"""
claims:
  planted:
    found: {ITEMS.format(*INDUCTION_HEAD)}
    control: {ITEMS.format(0, 0)}
    expected: above
    margin: 0.9
    unit: fraction of attention
  unplanted: {{found: "{ITEMS.format(0, 0)}", expected: above, margin: 0.9, unit: fraction of attention}}
"""


def test_a_training_is_followed_from_its_steps_to_verdicts_the_page_and_mlflow(home: Home, configs: Path) -> None:
    (configs / "models" / "small.yaml").write_text(MODEL)
    (configs / "studies" / "following.yaml").write_text(STUDY)
    outcome = dynamics("following")
    assert outcome["trials"] == {"delivered": 6}
    assert outcome["claims"] == {"cannot be tested": 1, "holds": 1}
    (change,) = rows(home, "select * from mart.phase_changes")
    assert (change["measure"], change["n_steps"], change["verdict"]) == ("induction", 6, "none")
    said = {each["claim"]: each["reason"] for each in rows(home, "select claim, reason from mart.comparisons")}
    assert said == {
        "attention_is_a_share": None,
        "no_jump_in_five_steps": "units with a value: 1; the claim asks for at least 5",
    }
    page = Path(outcome["report"]).read_text()
    assert "No step gives more attention than there is." in page
    # the best head and the mean over heads; the training's own loss and its two checks
    assert page.count('<svg class="curves"') == 2 + 3
    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    (recorded,) = client.search_runs([_experiment(client)], "attributes.run_name = 'following / comparisons'")
    files = [each.path for each in client.list_artifacts(recorded.info.run_id)]
    assert sorted(files) == ["claims.json", "phase_changes.json", "pictures"]
    pictures = [each.path for each in client.list_artifacts(recorded.info.run_id, "pictures")]
    assert pictures == ["pictures/curves.png", "pictures/training.png"]
    assert "claims/attention_is_a_share" in recorded.data.metrics
    again = dynamics("following")
    assert (again["computed_trials"], len(ledger.all())) == (0, 0)


def _experiment(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("following")
    assert experiment is not None
    return str(experiment.experiment_id)


def test_claims_of_any_study_are_judged_and_a_dropped_claim_goes(home: Home, configs: Path) -> None:
    (configs / "studies" / "planted.yaml").write_text(PLANTED + CLAIMS)
    assert study("planted")["claims"] == {"does not hold": 1, "holds": 1}
    (found,) = rows(home, "select found, control, n, verdict from mart.comparisons where claim = 'planted'")
    assert found["found"] == pytest.approx(1, abs=1e-2)
    assert (found["n"], found["verdict"]) == (6, "holds")
    (configs / "studies" / "planted.yaml").write_text(PLANTED)
    assert study("planted")["claims"] == {}
    assert rows(home, "select * from mart.comparisons") == []


def test_a_claim_that_cannot_be_asked_stops_the_study_before_any_compute(home: Home, configs: Path) -> None:
    bad = PLANTED + "claims: {odd: {found: select 1 from raw.trials, expected: above, unit: x}}\n"
    (configs / "studies" / "planted.yaml").write_text(bad)
    with pytest.raises(BadInput, match="study planted, claim odd: `found` cannot be asked: there is no view"):
        study("planted")
    assert not home.lake.exists()


def test_a_study_without_steps_has_no_dynamics(home: Home) -> None:
    with pytest.raises(BadInput, match="study planted has no steps to follow: give it `steps:"):
        dynamics("planted")
    assert not home.lake.exists()
