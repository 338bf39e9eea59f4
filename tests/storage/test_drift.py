"""Drift: what a study's numbers were and are, where another delivery answers the same trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from storage.drift import broken_promises_now, moved_between
from storage.home import Home
from storage.lake import Lake
from storage.rows import rows
from storage.warehouse import publish
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial

MOVED = "select trial_id, layer, head, is_moved from mart.drift order by all"
Ask = Callable[[str], list[tuple[Any, ...]]]
Numbers = tuple[float, float | None, float | None]  # value and interval
CASES: list[tuple[Numbers, Numbers, bool]] = [
    ((1.0, 0.9, 1.1), (1.05, 0.95, 1.15), False),  # they overlap
    ((1.0, 0.9, 1.1), (1.2, 1.1, 1.3), False),  # they touch
    ((1.0, 0.9, 1.1), (1.3, 1.2, 1.4), True),
    ((1.3, 1.2, 1.4), (1.0, 0.9, 1.1), True),  # and the other way
    ((0.9, 0.9, 0.9), (0.90005, 0.90005, 0.90005), False),  # rounding is no drift
    ((0.9, 0.9, 0.9), (0.9002, 0.9002, 0.9002), True),
    ((5000.0, None, None), (5000.4, None, None), False),  # without interval: rounding of a large number
    ((5000.0, None, None), (5001.0, None, None), True),
    ((math.nan, None, None), (math.nan, None, None), False),  # never measurable
    ((0.5, 0.4, 0.6), (math.nan, None, None), True),  # measurable no more
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def lake(home: Home) -> Lake:
    return Lake(home.lake)


@pytest.fixture
def ask(home: Home) -> Ask:
    """Publish, then ask."""

    def answer(sql: str) -> list[tuple[Any, ...]]:
        assert publish(home).promises_broken == ()
        return [tuple(each.values()) for each in rows(home, sql)]

    return answer


def deliver_readout(lake: Lake, delivery_id: str, value: float, low: float | None, high: float | None) -> None:
    row = {"delivery_id": delivery_id, "readout": "copy_loss", "value": value, "is_accuracy": False}
    row |= {"ci_low": low, "ci_high": high, "chance": None, "n_items": 20, "n_clusters": None}
    lake.deliver("behavior", delivery_id, pl.DataFrame([row], infer_schema_length=None))


def two_readouts(lake: Lake, name: str, before: Numbers, now: Numbers) -> None:
    """One behavior trial, answered twice."""
    for delivery_id, numbers in ((f"{name}-before", before), (f"{name}-now", now)):
        facts = {"probe": "copy_loss", "level": "behavior", "unit": "nats", "low": None, "high": None}
        deliver_trial(lake, delivery_id, trial_id=f"t{name}", **facts)
        deliver_readout(lake, delivery_id, *numbers)
    deliver_answer(lake, "s", f"t{name}", f"{name}-now", previous=f"{name}-before")


def test_only_the_head_whose_intervals_lie_apart_has_moved(lake: Lake, ask: Ask) -> None:
    for delivery_id, scores in (("d1", {(0, 0): 0.3, (0, 1): 0.3}), ("d2", {(0, 0): 0.45, (0, 1): 0.39})):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, scores)
    deliver_answer(lake, "s", "t1", "d2", previous="d1")
    assert ask(MOVED) == [("t1", 0, 0, True), ("t1", 0, 1, False)]
    numbers = "previous_value, value, previous_high, ci_low, difference, gap"
    (found,) = ask(f"select {numbers} from mart.drift where head = 0")
    assert found == pytest.approx((0.3, 0.45, 0.35, 0.40, 0.15, 0.05))


def test_moved_means_apart_by_more_than_rounding(lake: Lake, ask: Ask) -> None:
    for number, (before, now, _) in enumerate(CASES):
        two_readouts(lake, str(number), before, now)
    found = ask("select trial_id, is_moved from mart.drift")
    assert dict(found) == {f"t{number}": is_moved for number, (*_, is_moved) in enumerate(CASES)}


def test_what_changed_is_named_by_part(lake: Lake, ask: Ask) -> None:
    before = '{"weights": "w", "code.mneme.stats": "1", "code.mneme.old": "1", "parameters": {"k": [1, 2]}}'
    now = '{"weights": "w", "code.mneme.stats": "2", "version.torch": "2", "parameters": {"k": [1, 3]}}'
    for delivery_id, identity in (("d1", before), ("d2", now)):
        deliver_trial(lake, delivery_id, identity=identity)
        deliver_head_scores(lake, delivery_id, {(0, 0): 0.5})
    deliver_answer(lake, "s", "t1", "d2", previous="d1")
    assert ask("select changed from mart.drift") == [("code.mneme.old, code.mneme.stats, parameters, version.torch",)]


def test_with_nothing_before_there_is_nothing_to_compare(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    lake.answer("s", "t1", "d1")
    lake.answer("s", "t1", "d1")
    assert ask("select * from mart.drift") == []


def test_the_answer_remembers_the_last_delivery_with_results(lake: Lake) -> None:
    for delivery_id in ("d1", "d2"):
        deliver_trial(lake, delivery_id)
    deliver_trial(lake, "f1", status="failed", error="why", seconds=None, forwards=None)
    known = []
    for delivery_id in ("f1", "d1", "f1", "d2", "d1", "f1", "d1"):
        answer = lake.answer("s", "t1", delivery_id)
        known.append(pl.read_parquet(lake.folder / answer.path)["previous_delivery_id"].item())
    assert known == [None, None, "d1", "d1", "d2", "d1", None]  # the last: back where it was before it failed


def test_each_study_is_compared_with_its_own_answer_before(lake: Lake, ask: Ask) -> None:
    for delivery_id, score in (("d1", 0.2), ("d2", 0.8)):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, {(0, 0): score})
    for study, delivery_id in (("old", "d1"), ("both", "d1"), ("both", "d2")):
        lake.answer(study, "t1", delivery_id)
    assert ask("select study, previous_delivery_id from mart.drift") == [("both", "d1")]


def test_a_number_that_only_one_of_the_two_has_is_not_compared(lake: Lake, ask: Ask) -> None:
    for delivery_id, scores in (("d1", {(0, 0): 0.5}), ("d2", {(0, 0): 0.5, (0, 1): 0.9})):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, scores)
    deliver_answer(lake, "s", "t1", "d2", previous="d1")
    assert ask(MOVED) == [("t1", 0, 0, False)]


def test_only_answers_taken_since_the_run_before_count_as_moved(home: Home, lake: Lake) -> None:
    for study, minutes in (("s", 1), ("s", 10), ("other", 10)):
        trial_id = f"{study}-{minutes}"
        for delivery_id, score in ((f"{trial_id}-before", 0.2), (f"{trial_id}-now", 0.8)):
            deliver_trial(lake, delivery_id, trial_id=trial_id)
            deliver_head_scores(lake, delivery_id, {(0, 0): score, (0, 1): score / 4})
        deliver_answer(lake, study, trial_id, f"{trial_id}-now", minutes, previous=f"{trial_id}-before")
    assert publish(home).promises_broken == tuple(broken_promises_now(home)) == ()
    five, twenty = (f"2026-01-01T12:{minutes}:00+00:00" for minutes in ("05", "20"))
    found = moved_between(home, "s", five, twenty)
    assert [(each["trial_id"], each["head"]) for each in found] == [("s-10", 0), ("s-10", 1)]  # the widest gap first
    assert moved_between(home, "s", twenty, "2026-01-01T14:00:00+00:00") == []


def test_a_broken_promise_of_the_published_results_is_said(home: Home, lake: Lake) -> None:
    assert broken_promises_now(home) == []
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    publish(home)
    assert broken_promises_now(home) == ["mart.trials: a delivered head trial has head scores is broken by 1 row"]
