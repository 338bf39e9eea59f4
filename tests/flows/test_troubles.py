"""Which trouble a run ends with, and what it says."""

from __future__ import annotations

from typing import Any

from flows.troubles import PromisesBroken, ScoresMoved, TrialsFailed, troubles_of

OUTCOME = {"study": "quickstart", "trials": {"delivered": 2, "failed": 1}}


def moved(trial: str, **changes: Any) -> dict[str, Any]:
    row = {"trial_id": trial, "model": "tiny", "model_seed": 0, "step": None, "promptset": "repeated_tokens"}
    row |= {"promptset_seed": 1, "probe": "induction", "variant": "primary", "measure": "score"}
    return row | {"layer": 1, "head": 2, "previous_value": 0.95, "value": 0.41} | changes


def test_a_run_without_trouble_raises_nothing() -> None:
    assert troubles_of(OUTCOME, [], [], []) is None


def test_drift_leaves_with_three_and_names_each_trial_once_with_its_widest_gap() -> None:
    step = moved("b", step=10, variant="strict", head=None, measure="copy_loss", value=None)
    found = troubles_of(OUTCOME, [], [], [moved("a"), moved("a", head=3), step])
    assert isinstance(found, ScoresMoved)
    assert (found.exit_code, found.outcome) == (3, OUTCOME)
    assert str(found) == (
        "3 numbers in 2 trials of quickstart moved by more than their intervals allow since the run before: "
        "tiny[0] / repeated_tokens[1] / induction (score L1H2 0.95 -> 0.41), "
        "tiny[0]@10 / repeated_tokens[1] / induction[strict] (copy_loss 0.95 -> NULL); see mart.drift"
    )


def test_the_gravest_trouble_is_raised_and_the_others_are_said_with_it() -> None:
    found = troubles_of(
        OUTCOME, [("one", "why"), ("two", "how")], ["mart.trials: x is never NULL is broken"], [moved("a")]
    )
    assert isinstance(found, TrialsFailed)
    assert found.exit_code == 1
    for part in (
        "2 of 3 trials of quickstart failed",
        "the first, one: why; also two",
        "1 broken promises of the warehouse: mart.trials",
        "1 numbers in 1",
    ):
        assert part in str(found)
    broken = troubles_of(OUTCOME, [], ["mart.trials: x is never NULL is broken"], [moved("a")])
    assert isinstance(broken, PromisesBroken)
    assert broken.exit_code == 4


def test_more_trials_than_can_be_read_are_counted() -> None:
    found = troubles_of(OUTCOME, [], [], [moved(f"t{number}") for number in range(14)])
    assert str(found).count("induction (") == 10
    assert "and 4 more; see mart.drift" in str(found)
