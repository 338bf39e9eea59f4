"""The table of behaviors: a model beside chance, an untrained model, a bigram and what copying reaches."""

import json
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from mneme.stats import wilson
from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish
from tests.storage.rows import deliver_answer, deliver_trial

ITEMS = 200
COPIES = ("first", "last", "most_frequent")


class Grid:
    """Behavior trials of some models on promptsets, and the table of them."""

    def __init__(self, home: Home) -> None:
        self.home, self.lake = home, Lake(home.lake)

    def deliver(self, model: str, probe: str, value: float, **about: Any) -> None:
        """One trial; `chance`, `readout`, `accuracy` and `prompts` are not columns of the trial itself."""
        extra = {"chance": 0.5, "accuracy": None, "prompts": "p1", "readout": probe, "n_items": ITEMS}
        extra |= {name: about.pop(name) for name in list(about) if name in extra}
        key = "-".join(["d", model, probe, *map(str, about.values())])
        spec = {"promptset_spec": {"accuracy": extra["accuracy"]}} if extra["accuracy"] else {}
        facts = {"level": "behavior", "unit": "fraction of prompts", "promptset": "ioi", "low": 0.0, "high": 1.0}
        facts |= {"identity": json.dumps({"promptset": extra["prompts"]}), "spec": json.dumps(spec)}
        deliver_trial(self.lake, key, trial_id=f"t-{key}", model=model, probe=probe, **(facts | about))
        deliver_answer(self.lake, "s", f"t-{key}", key)
        row = {"delivery_id": key, "value": value, "is_accuracy": True, "ci_low": None, "ci_high": None}
        row |= {"n_clusters": None} | {name: extra[name] for name in ("readout", "chance", "n_items")}
        self.lake.deliver("behavior", key, pl.DataFrame([row], infer_schema_length=None))

    def baselines(self, untrained: float = 0.5, bigram: float = 0.55, copies: float = 0.5) -> None:
        """All five baselines on the same prompts."""
        self.deliver("blank", "answer_accuracy", untrained, baseline="untrained")
        self.deliver("pairs", "answer_accuracy", bigram, baseline="bigram")
        for variant in COPIES:
            self.deliver("micro", "copy_baseline", copies, variant=variant)

    def ask(self, columns: str) -> list[tuple[Any, ...]]:
        """Publish, then ask."""
        assert publish(self.home).promises_broken == ()
        with duckdb.connect(str(self.home.results), read_only=True) as connection:
            return connection.execute(f"select {columns} from mart.behavior_table order by all").fetchall()


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(Home(tmp_path))


def test_a_behavior_far_above_its_baselines_is_learnt_and_stands_beside_them(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 0.97)
    grid.baselines()
    found = grid.ask("model, promptset, accuracy, chance, untrained, bigram, copy_first, best_baseline, is_learnt")
    assert found == [("micro", "ioi", 0.97, 0.5, 0.5, 0.55, 0.5, 0.55, True)]


@pytest.mark.parametrize(("value", "n_items"), [(0.97, 200), (1.0, 30), (0.5, 100), (0.0, 64)])
def test_the_interval_is_wilsons(grid: Grid, value: float, n_items: int) -> None:
    grid.deliver("micro", "answer_accuracy", value, n_items=n_items)
    ((low, high, n),) = grid.ask("ci_low, ci_high, n_items")
    assert (low, high) == pytest.approx(wilson(round(value * n_items), n_items), abs=1e-12)
    assert n == n_items


def test_a_lower_bound_below_nine_tenths_is_not_learnt_whatever_was_run(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 0.93)  # of 200: from 0.886 on
    assert grid.ask("is_learnt") == [(False,)]


@pytest.mark.parametrize("which", ["untrained", "bigram", "copies"])
def test_a_shortcut_that_beats_chance_by_more_than_a_tenth_spoils_it(grid: Grid, which: str) -> None:
    grid.deliver("micro", "answer_accuracy", 1.0)
    grid.baselines(**{which: 0.61})
    assert grid.ask("is_learnt, best_baseline") == [(False, 0.61)]


def test_without_its_baselines_nothing_is_known(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 1.0)
    assert grid.ask("is_learnt, untrained, bigram, copy_last, best_baseline") == [(None,) * 5]
    grid.deliver("blank", "answer_accuracy", 0.5, baseline="untrained")
    assert grid.ask("is_learnt, untrained, bigram") == [(None, 0.5, None)]


def test_baselines_on_other_prompts_are_no_baselines(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 1.0, prompts="p2")
    grid.baselines()
    assert grid.ask("is_learnt, best_baseline") == [(None, None)]


def test_a_promptset_whose_answers_are_a_set_is_judged_by_the_set(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 1.0, accuracy="set_accuracy")
    grid.deliver("micro", "set_accuracy", 0.99, accuracy="set_accuracy", chance=0.48)
    assert grid.ask("readout, accuracy, chance") == [("set_accuracy", 0.99, 0.48)]


def test_prompts_without_answers_have_nothing_to_copy_and_need_no_such_baseline(grid: Grid) -> None:
    for model, value, baseline in (("micro", 0.99, None), ("blank", 0.01, "untrained"), ("pairs", 0.02, "bigram")):
        about = {"baseline": baseline} if baseline else {}
        grid.deliver(model, "copy_accuracy", value, accuracy="copy_accuracy", chance=0.01, **about)
    assert grid.ask("model, readout, is_learnt, copy_first") == [("micro", "copy_accuracy", True, None)]


def test_variants_controls_and_steps_are_not_in_the_table(grid: Grid) -> None:
    grid.deliver("micro", "answer_accuracy", 1.0, variant="corrupt")
    grid.deliver("micro", "answer_accuracy", 1.0, is_control=True)
    grid.deliver("micro", "answer_accuracy", 1.0, step=64)
    assert grid.ask("model") == []


def test_each_seed_of_a_model_has_a_row(grid: Grid) -> None:
    for seed in (0, 1, 2):
        grid.deliver("micro", "answer_accuracy", 0.9 + seed / 100, model_seed=seed)
    assert grid.ask("model_seed, accuracy") == [(0, 0.9), (1, 0.91), (2, 0.92)]
