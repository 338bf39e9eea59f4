"""A study may be made of other studies: their trials once each, their claims, their phase changes."""

from pathlib import Path

import pytest

from mneme.errors import BadInput
from storage.studies import load_study

CLAIM = "  {name}: {{found: 'select item as unit_id, value from mart.item_scores', expected: above, unit: nats}}\n"


@pytest.fixture(autouse=True)
def parts(configs: Path) -> None:
    """Two studies with one trial in common."""
    for name, probes in (("one", "induction, previous_token"), ("two", "copy_loss, induction")):
        (configs / "studies" / f"{name}.yaml").write_text(
            f"models: [quick, quick-one-layer]\npromptsets: [repeated_tokens]\nprobes: [{probes}]\n"
            f"phase_changes: {{measures: [{name}, both]}}\nclaims:\n" + CLAIM.format(name=f"claim_{name}")
        )


def write(configs: Path, text: str) -> str:
    (configs / "studies" / "whole.yaml").write_text(text)
    return "whole"


def test_what_is_included_brings_each_trial_once_and_a_model_is_asked_at_one_go(configs: Path) -> None:
    trials = load_study(write(configs, "includes: [one, two]\n")).trials
    found = [(trial.model, trial.probe) for trial in trials]
    probes = ["induction", "previous_token", "copy_loss"]
    assert found == [(model, probe) for model in ("quick", "quick-one-layer") for probe in probes]
    alone = {trial.trial_id for name in ("one", "two") for trial in load_study(name).trials}
    assert {trial.trial_id for trial in trials} == alone


def test_what_is_included_brings_its_claims_and_its_phase_changes(configs: Path) -> None:
    spec = load_study(write(configs, "includes: [one, two]\nclaims:\n" + CLAIM.format(name="own"))).spec
    assert set(spec.claims) == {"own", "claim_one", "claim_two"}
    assert spec.phase_changes is not None
    assert spec.phase_changes.measures == ("one", "both", "two")


def test_own_trials_stand_beside_included_ones(configs: Path) -> None:
    own = "includes: [one]\nmodels: [quick]\npromptsets: [repeated_tokens]\nprobes: [first_token_sink]\n"
    assert len(load_study(write(configs, own)).trials) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("description: nothing\n", "the key 'models' is missing"),
        ("includes: [one]\nmodels: [quick]\n", "the key 'promptsets' is missing"),
        ("includes: [one, one]\n", "stands there twice"),
        ("includes: [whole]\n", "study whole includes whole, which includes others"),
        ("includes: [absent]\n", "absent"),
        ("includes: [one]\nclaims:\n" + CLAIM.format(name="claim_one"), "gets the claim 'claim_one' twice"),
        (
            "includes: [one]\nmodels: [quick]\npromptsets: [repeated_tokens]\nprobes: [copy_loss]\n"
            "overrides: {promptsets.repeated_tokens.parameters.n_items: 7}\n",
            "gets the promptset 'repeated_tokens' with two sets of parameters",
        ),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_in_one_sentence(configs: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        load_study(write(configs, text))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)
