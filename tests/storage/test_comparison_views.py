"""Claims and phase changes, from the lake to their marts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mneme.errors import BadInput
from storage.home import Home
from storage.lake import Lake
from storage.rows import rows
from storage.validating import validated
from storage.warehouse import publish
from tests.storage.rows import comparison_row, deliver_comparisons, phase_change_row

# the stable first columns; more may follow
CLAIMS = "claim expected found ci_low ci_high n control verdict comparison_id study reason level margin unit"
CURVES = (
    "comparison_id model model_seed promptset promptset_seed variant measure t50 t50_low t50_high width rise bic_gain"
    " n_steps verdict unit"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    deliver_comparisons(Lake(home.lake))
    assert publish(home).promises_broken == ()
    return home


@pytest.mark.parametrize(("view", "columns"), [("comparisons", CLAIMS), ("phase_changes", CURVES)])
def test_the_marts_begin_with_the_designed_columns(home: Home, view: str, columns: str) -> None:
    described = [str(each["column_name"]) for each in rows(home, f"describe mart.{view}")]
    assert described[: len(columns.split())] == columns.split()


def test_each_claim_has_its_verdict_and_an_untested_one_no_interval(home: Home) -> None:
    found = rows(home, "select verdict, ci_low, reason is null as is_fine from mart.comparisons order by claim")
    assert [tuple(each.values()) for each in found] == [
        ("holds", 0.7, True),
        ("does not hold", 0.7, False),
        ("cannot be tested", None, False),
    ]


def test_a_curve_without_a_phase_change_has_no_t50(home: Home) -> None:
    found = rows(home, "select measure, t50, unit from mart.phase_changes order by measure")
    assert [tuple(each.values()) for each in found] == [
        ("induction", 500.0, "steps"),
        ("previous_token", None, "steps"),
    ]


def test_a_study_delivered_again_replaces_its_claims_and_leaves_those_of_others(home: Home) -> None:
    lake = Lake(home.lake)
    deliver_comparisons(lake, "other")
    lake.deliver("comparisons", "example", pl.DataFrame([comparison_row("new")], infer_schema_length=None))
    publish(home)
    found = rows(home, "select study, claim from mart.comparisons order by all")
    assert [each["claim"] for each in found if each["study"] == "example"] == ["new"]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("table", "row", "sentence"),
    [
        ("comparisons", comparison_row("x", reason="why"), "a reason exactly where the claim does not hold"),
        ("comparisons", comparison_row("x", ci_low=1.0), "ci_low <= ci_high"),
        ("comparisons", comparison_row("x", verdict="true"), "verdict"),
        ("comparisons", comparison_row("x", unit=""), "unit"),
        ("phase_changes", phase_change_row("x", t50_low=700.0), "t50_low <= t50_high"),
        ("phase_changes", phase_change_row("x", verdict="perhaps"), "verdict"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(table: str, row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        validated(table, pl.DataFrame([row], infer_schema_length=None))
