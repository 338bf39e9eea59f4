"""From curves in the lake to phase changes and claims in their marts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from storage.curves import read_curves
from storage.home import Home
from storage.lake import Lake
from storage.rows import rows
from storage.specs import ClaimSpec, PhaseChangesSpec
from storage.warehouse import publish
from tasks.compare import deliver_comparisons, find_phase_changes, judge_claims
from tests.storage.curves import HALVES, STEPS, deliver_curves, deliver_training

pytestmark = pytest.mark.usefixtures("prefect_server")
BOTH = PhaseChangesSpec(measures=("induction", "previous_token"))
LOG_T50 = "select model_seed as unit_id, ln(t50) as value from mart.phase_changes where measure = '{}'"
EARLIER = {"found": LOG_T50.format("previous_token"), "control": LOG_T50.format("induction"), "unit": "log steps"}
CLAIMS = {
    "first": ClaimSpec(**EARLIER, expected="below"),
    "last": ClaimSpec(**EARLIER, expected="above"),
    "together": ClaimSpec(**EARLIER, expected="within", margin=0.1),
    "far_apart": ClaimSpec(**EARLIER, expected="below", margin=1.0),
    "more_seeds": ClaimSpec(**EARLIER, expected="below", least_n=6),
    "more_heads": ClaimSpec(**EARLIER, expected="below", least_n=6, needs="heads of both kinds"),
    "no_number": ClaimSpec(found="select 1 as unit_id, model::double as value from trials", expected="above", unit="x"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Home:
    """Five seeds whose heads form one after the other, their comparisons delivered and published."""
    home = Home(tmp_path_factory.mktemp("home"))
    ids = deliver_curves(Lake(home.lake), "s")
    publish(home)
    in_a_flow(deliver, home, "phase_changes", lambda: find_phase_changes(home, "s", BOTH, ids))
    in_a_flow(deliver, home, "comparisons", lambda: judge_claims(home, "s", CLAIMS, ids, seed=0))
    return home


def deliver(home: Home, table: str, found: Any) -> bool:
    is_changed = deliver_comparisons(home, table, "s", found())
    assert publish(home).promises_broken == ()
    return is_changed


def in_a_flow(body: Any, *given: Any) -> Any:
    from prefect import flow

    @flow(persist_result=False)
    def once() -> Any:
        return body(*given)

    return once()


def test_each_seed_of_each_probe_has_its_phase_change_where_it_was_planted(home: Home) -> None:
    found = {
        (each["measure"], each["model_seed"]): each
        for each in rows(home, "select * from mart.phase_changes where study = 's'")
    }
    assert len(found) == 10
    for (measure, seed), each in found.items():
        assert each["verdict"] == "phase change"
        assert each["t50"] == pytest.approx(HALVES[measure] * 1.1**seed, rel=0.05)
        assert each["t50_low"] < each["t50"] < each["t50_high"]
        assert (each["n_steps"], each["promptset"], each["variant"]) == (len(STEPS), "repeated_tokens", "primary")


@pytest.mark.parametrize(
    ("claim", "verdict", "reason"),
    [
        ("first", "holds", None),
        ("last", "does not hold", "contradicts it: a difference above 0"),
        ("together", "does not hold", "contradicts it: a difference within ±0.1"),
        ("far_apart", "holds", None),
        ("more_seeds", "cannot be tested", "units with both a value and a control: 5; the claim asks for at least 6"),
        ("more_heads", "cannot be tested", "asks for at least 6; a unit needs heads of both kinds"),
        ("no_number", "cannot be tested", "`found` fails: Conversion Error"),
    ],
)
def test_a_claim_about_the_order_of_phase_changes_gets_its_verdict(
    home: Home, claim: str, verdict: str, reason: str | None
) -> None:
    (found,) = rows(home, "select * from mart.comparisons where claim = ?", [claim])
    assert found["verdict"] == verdict
    assert found["reason"] is None if reason is None else reason in found["reason"]
    assert (found["ci_low"] is None) == (verdict == "cannot be tested")


def test_the_numbers_of_a_claim_are_those_of_its_seeds(home: Home) -> None:
    (found,) = rows(home, "select * from mart.comparisons where claim = 'first'")
    assert found["n"] == 5
    assert found["difference"] == pytest.approx(found["found"] - found["control"])
    assert found["difference"] == pytest.approx(-1.386, abs=0.05)  # ln(30 / 120)


def test_a_claim_is_judged_on_the_trials_it_is_given(home: Home) -> None:
    steps = "select trial_id as unit_id, value from mart.dynamics where measure = 'induction'"
    claim = {"alive": ClaimSpec(found=steps, expected="above", unit="fraction of attention")}
    ids = [each["trial_id"] for each in rows(home, "select trial_id from mart.dynamics where measure = 'induction'")]
    judged = {n: in_a_flow(lambda n=n: judge_claims(home, "s", claim, ids[:n], seed=0)) for n in (len(ids), 7, 0)}
    assert {n: row["n"] for n, (row,) in judged.items()} == {n: n for n in judged}
    assert judged[len(ids)][0]["verdict"] == "holds"
    assert judged[0][0]["verdict"] == "cannot be tested"
    assert len({row["comparison_id"] for (row,) in judged.values()}) == 3


def test_the_same_comparisons_again_change_nothing(home: Home) -> None:
    from tasks.ledger import ledger

    ids = [each["trial_id"] for each in rows(home, "select trial_id from mart.study_trials")]
    ids = ids or [each["trial_id"] for each in rows(home, "select distinct trial_id from mart.dynamics")]
    ledger.reset()
    assert not in_a_flow(deliver, home, "phase_changes", lambda: find_phase_changes(home, "s", BOTH, ids))
    assert not in_a_flow(deliver, home, "comparisons", lambda: judge_claims(home, "s", CLAIMS, ids, seed=0))
    assert ledger.all() == []


def test_a_study_that_compares_nothing_writes_nothing_and_drops_what_it_compared(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not deliver_comparisons(home, "comparisons", "s", [])
    assert not home.lake.exists()
    ids = deliver_curves(Lake(home.lake), "s", seeds=(0,))
    publish(home)
    assert in_a_flow(deliver, home, "phase_changes", lambda: find_phase_changes(home, "s", BOTH, ids))
    assert len(rows(home, "select * from mart.phase_changes")) == 2
    assert deliver(home, "phase_changes", list)
    assert rows(home, "select * from mart.phase_changes") == []


def test_what_a_training_measured_has_phase_changes_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    deliver_training(Lake(home.lake), "mine")
    deliver_training(Lake(home.lake), "of-another", seed=1)
    publish(home)
    (found,) = in_a_flow(find_phase_changes, home, "s", PhaseChangesSpec(measures=("loss",)), ["mine"])
    assert found["t50"] == pytest.approx(60, rel=0.05)
    assert (found["promptset"], found["variant"], found["t50_low"]) == (None, "training", None)
    assert found["rise"] < -2


def test_a_curve_of_few_steps_and_a_measure_of_nobody_have_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    ids = deliver_curves(Lake(home.lake), "s", seeds=(0,))
    publish(home)
    few = [trial_id for trial_id in ids if int(trial_id.split("-")[-1]) <= 24]
    asked = PhaseChangesSpec(measures=("induction", "nothing"))
    with caplog.at_level(logging.WARNING, logger="mneme"):
        assert in_a_flow(find_phase_changes, home, "s", asked, few) == []
    assert "needs 6 measured steps, and the curve has 4" in caplog.text
    assert "phase changes of nothing, and no trial measured it by steps" in caplog.text


def test_curves_are_read_in_order_of_steps_without_missing_values(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ids = deliver_curves(Lake(home.lake), "s", seeds=(3,))
    publish(home)
    (curve,) = read_curves(home, ["induction"], ids)
    assert [step for step, *_ in curve["points"]] == list(STEPS)
    assert (curve["model"], curve["model_seed"], curve["probe"]) == ("tiny", 3, "induction")
    assert read_curves(home, ["induction"], []) == []
