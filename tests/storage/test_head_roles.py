"""Roles of heads: by the thresholds of METHODS, from what was measured on promptsets that are no control."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial


class Measured:
    """Head trials by hand, and what the views say of them."""

    def __init__(self, home: Home) -> None:
        self.home, self.lake = home, Lake(home.lake)

    def deliver(self, probe: str, scores: dict[tuple[int, int], float], **about: Any) -> None:
        """One trial of a probe; its scores have intervals of 0.1."""
        key = "-".join([probe, *map(str, about.values())])
        deliver_trial(
            self.lake, f"d-{key}", trial_id=f"t-{key}", **({"probe": probe, "low": None, "high": None} | about)
        )
        deliver_answer(self.lake, "s", f"t-{key}", f"d-{key}")
        deliver_head_scores(self.lake, f"d-{key}", scores)

    def ask(self, *questions: str) -> list[list[tuple[Any, ...]]]:
        """Publish, then ask."""
        assert publish(self.home).promises_broken == ()
        with duckdb.connect(str(self.home.results), read_only=True) as connection:
            return [connection.execute(sql).fetchall() for sql in questions]


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(Home(tmp_path))


def test_heads_above_a_threshold_have_the_role_and_one_head_may_have_several(measured: Measured) -> None:
    measured.deliver("induction", {(0, 0): 0.9, (0, 1): 0.4, (1, 0): math.nan, (1, 1): 0.41})
    measured.deliver("retrieval_score", {(0, 0): 0.1, (0, 1): 0.099})  # a retrieval head scores 0.1 or more
    measured.deliver("first_token_sink", {(0, 0): 0.2, (0, 1): 0.31})
    measured.deliver("suppression_score", {(0, 0): 0.85, (0, 1): 0.5})
    measured.deliver("attention_entropy", {(0, 0): 0.9})
    roles, counts = measured.ask(
        "select role, layer, head from mart.head_roles order by all",
        "select role, n_heads, n_measured, share, threshold from mart.role_counts order by all",
    )
    assert roles == [
        ("copy_suppression", 0, 0),
        ("induction", 0, 0),
        ("induction", 1, 1),
        ("retrieval", 0, 0),
        ("sink", 0, 1),
    ]
    assert counts == [
        ("copy_suppression", 1, 2, 0.5, 0.5),
        ("induction", 2, 3, 2 / 3, 0.4),
        ("retrieval", 1, 2, 0.5, 0.1),
        ("sink", 1, 2, 0.5, 0.3),
    ]


def test_evidence_names_the_probe_the_score_the_interval_and_the_prompts(measured: Measured) -> None:
    measured.deliver("induction", {(0, 0): 0.75})
    ((evidence,),) = measured.ask("select evidence from mart.head_roles")[0]
    assert evidence == "induction 0.75 [0.7, 0.8], n 20"


def test_a_role_that_no_head_has_counts_0_and_one_that_was_not_measured_has_no_row(measured: Measured) -> None:
    measured.deliver("induction", {(0, 0): 0.1, (0, 1): 0.2})
    measured.deliver("previous_token", {(0, 0): math.nan})
    assert measured.ask("select role, n_heads, n_measured from mart.role_counts") == [[("induction", 0, 2)]]


def test_controls_and_other_variants_give_no_role(measured: Measured) -> None:
    measured.deliver("induction", {(0, 0): 0.9}, promptset="shuffled", is_control=True)
    measured.deliver("retrieval_score", {(0, 0): 0.9}, variant="random_span")
    assert measured.ask("select * from mart.head_roles", "select * from mart.role_counts") == [[], []]


def test_a_name_mover_writes_the_name_for_certain_and_copies_what_it_attends_to(measured: Measured) -> None:
    measured.deliver("direct_logit_attribution", {(0, 0): 2.0, (0, 1): 2.0, (1, 0): 0.04}, promptset="ioi")
    measured.deliver("direct_logit_attribution", {(0, 0): 2.0}, promptset="stored_facts")
    role = "select layer, head, evidence from mart.head_roles where role = 'name_mover'"
    assert measured.ask(role) == [[]]  # whether heads copy is not known yet
    measured.deliver("copying_top5", {(0, 0): 0.99, (0, 1): 0.9, (1, 0): 0.99})
    assert measured.ask(role) == [
        [(0, 0, "direct_logit_attribution 2 [1.95, 2.05], n 20, copying_top5 0.99")]  # (1, 0) may write nothing
    ]


def test_what_copy_suppression_keeps_of_a_head_is_evidence_too(measured: Measured) -> None:
    about = {"level": "intervention", "unit": "nats", "low": None, "high": None, "probe": "copy_suppression"}
    deliver_trial(measured.lake, "d1", **about)
    deliver_answer(measured.lake, "s", "t1", "d1")
    ends = {
        "ci_low": 0.1,
        "ci_high": 0.3,
        "normalised_low": 0.6,
        "normalised_high": 0.9,
        "n_items": 9,
        "n_clusters": None,
    }
    rows = [
        {"delivery_id": "d1", "intervention": "copy_suppression", "layer": 0, "head": head, "position_label": None}
        | {"effect": 0.2, "normalised_effect": share}
        | ends
        for head, share in enumerate((0.77, 0.3))
    ]
    measured.lake.deliver("head_effects", "d1", pl.DataFrame(rows, infer_schema_length=None))
    found = measured.ask("select role, layer, head, unit, evidence from mart.head_roles")
    unit = "share of the effect of mean ablation"
    assert found == [[("copy_suppression", 0, 0, unit, "copy_suppression 0.77 [0.6, 0.9], n 9")]]
