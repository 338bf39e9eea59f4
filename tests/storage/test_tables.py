"""What a raw table takes and what it refuses."""

from __future__ import annotations

import math
from datetime import datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from mneme.errors import BadInput
from storage.parquet import LAYOUT
from storage.tables import TABLES, column_types
from storage.validating import validated
from tests.storage.rows import trial_row

SCORES: dict[str, list[Any]] = {
    "delivery_id": ["d", "d"],
    "layer": [0, 1],
    "head": [0, 0],
    "score": [0.5, 0.25],
    "ci_low": [0.4, 0.1],
    "ci_high": [0.6, 0.4],
    "n_items": [3, 3],
    "n_clusters": [2, None],
}


def scores(**changes: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(SCORES | changes, strict=False)


def test_columns_come_back_in_the_declared_order_and_types() -> None:
    shuffled = scores().select(sorted(SCORES, reverse=True)).cast({"layer": pl.Int8, "n_items": pl.Float64})
    frame = validated("head_scores", shuffled)
    assert dict(frame.schema) == {name: dtype for name, (dtype, _) in column_types("head_scores").items()}
    assert frame["n_items"].to_list() == [3, 3]


def test_nan_is_stored_as_null_where_null_is_allowed() -> None:
    assert validated("head_scores", scores(score=[math.nan, 0.25]))["score"].to_list() == [None, 0.25]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"score": [math.inf, 0.0]}, "column 'score': infinite values are not stored"),
        ({"layer": [-1, 0]}, r"column 'layer': expected greater_than_or_equal_to\(0\), found: -1"),
        ({"layer": [0.5, 1.0]}, "column 'layer': 0.5 is not a whole number"),
        ({"layer": [math.nan, 1.0]}, "column 'layer': NULL is not allowed here"),
        ({"layer": ["first", "second"]}, r"column 'layer': String values \(first, second\) do not fit"),
        ({"n_clusters": [0, 2]}, r"column 'n_clusters': expected greater_than_or_equal_to\(1\), found: 0"),
        ({"layer": [0, 0]}, "head_scores: two rows share one key"),
        ({"ci_low": [0.7, 0.1]}, "head_scores: expected ci_low <= ci_high, found:.*ci_low=0.7"),
        ({"rank": [1, 2]}, "has the unknown column rank"),
    ],
)
def test_a_fault_is_one_sentence_with_table_column_and_value(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refusal:
        validated("head_scores", scores(**changes))
    assert "\n" not in str(refusal.value)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BadInput, match="table head_scores lacks the column score"):
        validated("head_scores", scores().drop("score"))


def test_many_faults_are_shown_as_three_and_a_count() -> None:
    frame = pl.DataFrame(SCORES | {name: SCORES[name] * 50 for name in SCORES} | {"layer": [-1] * 100})
    with pytest.raises(BadInput, match=r"-1, -1, -1 and 97 more$"):
        validated("head_scores", frame.with_columns(head=pl.int_range(100)))


def test_two_missing_positions_are_the_same_position() -> None:
    row = {"delivery_id": "d", "intervention": "mean", "layer": 0, "head": 0, "position_label": None, "effect": 0.1}
    row |= {"ci_low": 0.0, "ci_high": 1.0, "n_items": 2, "n_clusters": None}
    row |= dict.fromkeys(("normalised_effect", "normalised_low", "normalised_high"))
    frame = pl.DataFrame([row] * 2)
    with pytest.raises(BadInput, match="two rows share one key"):
        validated("head_effects", frame)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": "failed"}, "an error exactly where the status is not delivered"),
        ({"error": "why"}, "an error exactly where the status is not delivered"),
        ({"status": "done"}, "column 'status'"),
        ({"spec": "{half"}, "column 'spec': expected valid JSON, found: {half"),
        ({"seconds": -1.0}, "column 'seconds'"),
        ({"low": 2.0}, "expected low <= high"),
        ({"unit": ""}, "column 'unit'"),
    ],
)
def test_a_trial_that_contradicts_itself_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        validated("trials", pl.DataFrame([trial_row("d") | changes], infer_schema_length=None))


def test_an_accuracy_above_one_is_refused_and_a_loss_is_not() -> None:
    row = {"delivery_id": "d", "readout": "copy", "value": 1.5, "ci_low": 0.0, "ci_high": 2.0, "chance": None}
    frame = pl.DataFrame([row | {"n_items": 2, "n_clusters": None, "is_accuracy": False}])
    assert len(validated("behavior", frame)) == 1
    with pytest.raises(BadInput, match="an accuracy between 0 and 1"):
        validated("behavior", frame.with_columns(is_accuracy=True))


def test_times_are_kept_as_the_same_instant_in_utc() -> None:
    eight = datetime(2026, 7, 1, 8, tzinfo=ZoneInfo("America/New_York"))
    frame = validated("trials", pl.DataFrame([trial_row("d", delivered_at=eight)], infer_schema_length=None))
    assert frame["delivered_at"].to_list() == [datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("UTC"))]


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown table 'scores': the raw tables are trials, answers"):
        validated("scores", scores())


def test_a_changed_table_asks_for_a_new_layout() -> None:
    """When this fails, raise LAYOUT in storage/parquet.py by one and put the new digest here."""
    described = repr({name: {c: str(t) for c, t in column_types(name).items()} for name in TABLES})
    assert (LAYOUT, sha256(described.encode()).hexdigest()[:12]) == (6, "3a38d097b97a")
