"""A home of an earlier version opens; one of a later version is left alone."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from storage.duck import WarehouseError
from storage.home import Home
from storage.lake import QUARANTINE
from storage.layouts import ADDED, fits
from storage.locks import file_lock
from storage.parquet import LAYOUT, layout_of_file, sealed_bytes
from storage.tables import TABLES, column_types
from storage.warehouse import publish, rebuild, refuse_later
from tests.storage.published import ask, one_trial
from tests.storage.rows import deliver_head_scores, fill

# What the tables held when they were first written, by hand. Nothing is ever added here: a column that comes later
# stands in storage/layouts.py with the layout that brought it, a table that comes later stands here as it began.
FIRST = {
    "trials": "delivery_id trial_id model model_seed promptset promptset_seed is_control probe variant probe_seed level"
    " unit low high status error delivered_at seconds forwards device dtype code versions identity spec",
    "answers": "study trial_id delivery_id answered_at",
    "item_scores": "delivery_id layer head item value",
    "head_scores": "delivery_id layer head score ci_low ci_high n_items",
    "head_effects": "delivery_id intervention layer head position_label effect ci_low ci_high n_items",
    "behavior": "delivery_id readout value is_accuracy ci_low ci_high chance n_items",
    "controls": "delivery_id k value ci_low ci_high control_mean control_low control_high n_draws n_distinct p_value"
    " n_items",
    "reliability": "delivery_id split_half spearman_brown top_k top_k_jaccard n_items",
    "comparisons": "comparison_id study claim description expected found control difference ci_low ci_high n verdict"
    " reason level margin least_n unit found_sql control_sql",
    "phase_changes": "comparison_id study model model_seed promptset promptset_seed probe variant measure t50 t50_low"
    " t50_high width rise bic_gain n_steps verdict",
    "curves": "delivery_id measure x_name x value ci_low ci_high n_items n_clusters unit",
    "curve_items": "delivery_id measure x_name x item value",
    "item_conditions": "delivery_id item condition value",
    "circuits": "delivery_id method rule search ablation level n_edges_requested n_edges n_nodes n_graph_edges"
    " is_selected faithfulness ci_low ci_high completeness completeness_low completeness_high incompleteness minimality"
    " control_mean control_low control_high control_n_edges n_draws p_value n_items n_clusters",
    "circuit_edges": "delivery_id source destination score exact_effect least_requested is_selected n_items",
    "circuit_measures": "delivery_id measure ablation level value ci_low ci_high unit n_items",
    "circuit_overlap": "comparison_id study model model_seed probe variant trial_id other_trial_id step promptset"
    " promptset_seed other_step other_promptset other_promptset_seed selection level n_a n_b n_shared n_universe"
    " jaccard coefficient recall_a recall_b p_value ceiling control score_cosine own_faithfulness cross_faithfulness"
    " cross_low cross_high dissociation dissociation_low dissociation_high n_items",
    "training": "training_id model model_seed step measure value unit ci_low ci_high n_items",
    "recordings": "study model model_seed promptset promptset_seed mlflow_run_id recorded_at",
}
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def write_old(home: Home, table: str, key: str, layout: int, rows: list[dict[str, Any]]) -> Path:
    """A lake file as an earlier version wrote it: its seal is made here by hand, over the bytes with a blank seal."""
    name, blank = f"{table}/{key}.parquet", f"mneme-layout:{layout:04d} seal:{'0' * 64}"
    buffer = io.BytesIO()
    types = {column: dtype for column, (dtype, _) in column_types(table).items() if column in rows[0]}
    pl.DataFrame(rows, schema=types).write_parquet(buffer, compression="zstd", metadata={"mneme": blank})
    data = buffer.getvalue()
    start = data.rfind(blank.encode())
    seal = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()
    sealed = data[:start] + blank.replace("0" * 64, seal).encode() + data[start + len(blank) :]
    (home.lake / table).mkdir(parents=True, exist_ok=True)
    (home.lake / name).write_bytes(sealed)
    return home.lake / name


def old_trial(delivery_id: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(FIRST["trials"].split())
    row |= {"delivery_id": delivery_id, "trial_id": f"t-{delivery_id}", "model": "tiny", "model_seed": 0}
    row |= {"promptset": "repeated_tokens", "promptset_seed": 0, "is_control": False, "variant": "primary"}
    row |= {"probe": "induction", "level": "head", "unit": "fraction of attention", "low": 0.0, "high": 1.0}
    row |= {"status": "delivered", "delivered_at": NOON, "versions": "{}", "identity": "{}", "spec": "{}"}
    return row | changes


def old_home(home: Home, layout: int = 1) -> None:
    """A head trial and an ablation, answered, in files of the first columns."""
    ablation = {"probe": "head_ablation", "level": "intervention", "unit": "nats", "low": None, "high": None}
    interval = {"ci_low": 0.25, "ci_high": 0.75, "n_items": 8}
    head = {"layer": 1, "head": 2}
    tables = {
        "d1": [("trials", old_trial("d1")), ("head_scores", {**head, "score": 0.5, **interval})],
        "d2": [
            ("trials", old_trial("d2", **ablation)),
            ("head_effects", {**head, "intervention": "mean", "position_label": None, "effect": 0.5, **interval}),
        ],
    }
    for key, files in tables.items():
        for table, row in files:
            write_old(home, table, key, layout, [{"delivery_id": key, **row}])
        answer = {"study": "s", "trial_id": f"t-{key}", "delivery_id": key, "answered_at": NOON}
        write_old(home, "answers", f"s--t-{key}", layout, [answer])


def test_every_column_was_there_at_first_or_is_declared_with_the_layout_that_brought_it() -> None:
    now = {table: list(column_types(table)) for table in TABLES}
    first = {table: columns.split() for table, columns in FIRST.items()}
    assert {table: sorted([*columns, *ADDED.get(table, {})]) for table, columns in first.items()} == {
        table: sorted(columns) for table, columns in now.items()
    }


def test_every_later_column_may_be_null_and_came_with_a_layout_that_there_is() -> None:
    for table, columns in ADDED.items():
        for column, layout in columns.items():
            assert column_types(table)[column][1], f"{table}.{column}"
            assert 1 < layout <= LAYOUT


def test_a_file_lacks_only_what_came_after_it() -> None:
    now, first = list(column_types("trials")), FIRST["trials"].split()
    assert fits("trials", 1, first, now)
    assert fits("trials", 2, [*first, "step"], now)
    assert fits("trials", 1, now, now)
    assert not fits("trials", 3, first, now)
    assert not fits("trials", 1, first[1:], now)
    assert not fits("trials", 1, [*first, "colour"], now)
    assert not fits("nowhere", 1, first, ())


@pytest.mark.parametrize("layout", [1, 2])
def test_an_old_home_opens_and_what_it_did_not_measure_is_null(home: Home, layout: int) -> None:
    old_home(home, 1)
    write_old(home, "trials", "d3", layout, [old_trial("d3", status="failed", error="no such head")])
    published = publish(home)
    assert (published.warnings, published.promises_broken) == ((), ())
    assert ask(home, "select layer, head, score, ci_low, n_items, n_clusters from mart.head_ranking") == [
        (1, 2, 0.5, 0.25, 8, None)
    ]
    effects = "select effect, normalised_effect, normalised_low, normalised_high, n_clusters from mart.head_effects"
    assert ask(home, effects) == [(0.5, None, None, None, None)]
    assert ask(home, "select distinct step, baseline from raw.trials") == [(None, None)]
    assert ask(home, "select count(*) from mart.trials") == [(2,)]


def test_old_and_new_files_live_in_one_home(home: Home) -> None:
    old_home(home)
    fill(home)
    assert publish(home).warnings == ()
    before = ask(home, "select count(*) from raw.trials")
    assert ask(home, "select count(*) from raw.head_scores where n_clusters is null and delivery_id = 'd1'") == [(1,)]
    rebuild(home)
    assert ask(home, "select count(*) from raw.trials") == before


def test_a_file_without_a_column_that_its_layout_had_is_set_aside(home: Home) -> None:
    old_home(home)
    rows = [{"delivery_id": "d9", "layer": 0, "head": 0, "score": 0.5, "n_items": 3}]
    write_old(home, "head_scores", "d9", 1, rows)
    (warning,) = publish(home).warnings
    assert "head_scores/d9.parquet is damaged or fits no table" in warning
    assert (home.lake / QUARANTINE / "head_scores--d9.parquet").is_file()


def test_the_layout_of_a_file_is_read_from_its_end(home: Home) -> None:
    old_home(home)
    assert layout_of_file(home.lake / "trials" / "d1.parquet") == 1
    deliver_head_scores(one_trial(home), "d5", {(0, head): 0.5 for head in range(500)})
    assert layout_of_file(home.lake / "head_scores" / "d5.parquet") == LAYOUT
    for damaged in (b"", b"PAR1", b"\xff" * 100):
        (home.root / "torn").write_bytes(damaged)
        assert layout_of_file(home.root / "torn") is None
    assert layout_of_file(home.root / "nowhere") is None


def later_layout(database: Path) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("update raw.meta set value = '99' where name = 'layout'")


@pytest.mark.parametrize("which", ["warehouse", "results"])
def test_a_warehouse_of_a_later_version_is_refused_with_the_mend(home: Home, which: str) -> None:
    one_trial(home)
    publish(home)
    refuse_later(home)
    later_layout(home.warehouse if which == "warehouse" else home.results)
    with pytest.raises(
        WarehouseError,
        match=rf"{which}\.duckdb was written by a later version of Mneme \(layout 99, this one knows {LAYOUT}\):"
        " update Mneme, or use another MNEME_HOME",
    ):
        refuse_later(home)


def test_a_lake_file_of_a_later_version_is_refused_before_it_is_merged_and_before_a_rebuild(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    before = home.warehouse.read_bytes()
    path = lake.folder / "head_scores" / "d2.parquet"
    rows = pl.read_parquet(lake.folder / "head_scores" / "d1.parquet")
    path.write_bytes(sealed_bytes("head_scores/d2.parquet", rows))
    refuse_later(home)
    path.write_bytes(path.read_bytes().replace(*(f"layout:{each:04d}".encode() for each in (LAYOUT, LAYOUT + 1))))
    for refusing in (refuse_later, rebuild):
        with pytest.raises(WarehouseError, match=r"d2\.parquet was written by a later version of Mneme: update Mneme"):
            refusing(home)
    assert home.warehouse.read_bytes() == before


def test_an_empty_a_damaged_and_a_busy_home_are_not_refused(home: Home) -> None:
    refuse_later(home)
    assert not list(home.root.iterdir())
    one_trial(home)
    publish(home)
    with file_lock(home.locks / "warehouse.lock"):
        refuse_later(home)  # somebody publishes: it does not wait
    for path in (home.warehouse, home.results):
        path.write_bytes(b"no database")
    refuse_later(home)
    assert "was damaged: it is rebuilt from the lake" in publish(home).warnings[0]
