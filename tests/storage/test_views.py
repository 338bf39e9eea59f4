"""Every view says what its yaml says, and shows what its question asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from mneme.errors import BadInput
from storage.home import Home
from storage.lake import Lake
from storage.views import View, broken_promises, build_views, list_views
from storage.warehouse import publish
from tests.storage.named_heads import deliver_ioi_heads, deliver_reused_heads
from tests.storage.rows import NOON, deliver_answer, deliver_head_scores, deliver_trial, fill, training_row

COMMON = ["model", "model_seed", "promptset", "promptset_seed", "variant", "trial_id", "unit"]
# the stable columns of each mart after the common ones; more may follow
DESIGNED = {
    "trials": "study probe probe_seed status error delivered_at seconds forwards device dtype code versions"
    " mlflow_run_id",
    "item_scores": "probe layer head item value",
    "head_ranking": "probe layer head score ci_low ci_high n_items rank",
    "head_effects": "intervention layer head position_label effect ci_low ci_high n_items",
    "behavior": "readout accuracy ci_low ci_high chance n_items",
    "controls": "probe k value control_mean control_low control_high n_draws n_distinct p_value",
    "curves": "probe measure x_name x value ci_low ci_high n_items",
    "curve_items": "probe measure x_name x item value",
    "reliability": "probe split_half spearman_brown top_k_jaccard",
    "head_concentration": "probe n_heads n_positive n_half concentration n_items",
    "head_roles": "layer head role evidence",
    "ioi_heads": "role layer head place score threshold n_items cost",
    "reused_heads": "stage other_promptset layer head is_here is_there is_shared",
    "study_trials": "study probe",
    "drift": "study probe measure layer head position_label k previous_value previous_low previous_high value ci_low"
    " ci_high difference is_moved",
    "dynamics": "step measure value ci_low ci_high",
    "circuits": "method rule ablation level n_edges_requested n_edges faithfulness ci_low ci_high completeness"
    " minimality",
    "circuit_edges": "source destination score exact_effect",
    "circuit_measures": "measure ablation level value ci_low ci_high",
}
# the marts that show means over prompts, with their number
OVER_PROMPTS = [
    "behavior",
    "behavior_table",
    "circuit_edges",
    "circuit_measures",
    "circuit_overlap",
    "circuits",
    "controls",
    "curves",
    "dynamics",
    "head_concentration",
    "head_effects",
    "head_ranking",
    "head_roles",
    "ioi_heads",
    "reliability",
    "reused_heads",
    "role_scores",
]
Ask = Callable[[str], list[tuple[Any, ...]]]


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
        with duckdb.connect(str(home.results), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return answer


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A published home with rows in every view."""
    home = Home(tmp_path_factory.mktemp("home"))
    fill(home)
    deliver_ioi_heads(Lake(home.lake))
    deliver_reused_heads(Lake(home.lake))
    publish(home)
    with duckdb.connect(str(home.results), read_only=True) as connection:
        yield connection


def every_view() -> list[Any]:
    return [pytest.param(view, id=view.full_name) for view in list_views()]


@pytest.mark.parametrize("view", every_view())
def test_the_yaml_lists_the_columns_of_the_view_in_their_order(view: View, full: duckdb.DuckDBPyConnection) -> None:
    described = full.execute(f"describe {view.full_name}").fetchall()
    assert [column.name for column in view.columns] == [name for name, *_ in described]


@pytest.mark.parametrize("view", every_view())
def test_every_view_has_rows_a_key_and_comments_in_the_published_copy(
    view: View, full: duckdb.DuckDBPyConnection
) -> None:
    assert full.execute(f"select count(*) > 0 from {view.full_name}").fetchone() == (True,)
    assert any(check.unique for check in view.checks)
    at = [view.db_schema, view.name]
    comments = full.execute(
        "select comment from duckdb_columns() where schema_name = ? and table_name = ? order by column_index", at
    ).fetchall()
    assert [text.split(" [")[0] for (text,) in comments] == [column.text for column in view.columns]
    (said,) = full.execute("select comment from duckdb_views() where schema_name = ? and view_name = ?", at).fetchall()
    assert said[0].startswith(view.description)


@pytest.mark.parametrize("name", DESIGNED)
def test_the_marts_begin_with_the_designed_columns(name: str, full: duckdb.DuckDBPyConnection) -> None:
    columns = [column for column, *_ in full.execute(f"describe mart.{name}").fetchall()]
    assert columns[: len(COMMON) + len(DESIGNED[name].split())] == COMMON + DESIGNED[name].split()


def test_the_promises_of_a_full_home_hold(full: duckdb.DuckDBPyConnection) -> None:
    assert broken_promises(full) == []


def test_heads_are_ranked_by_falling_score_then_layer_then_head(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.1, (1, 1): 0.5, (1, 0): 0.5, (0, 1): math.nan})
    assert ask("select layer, head, score, rank from mart.head_ranking order by rank") == [
        (1, 0, 0.5, 1),
        (1, 1, 0.5, 2),
        (0, 0, 0.1, 3),
        (0, 1, None, None),
    ]


def test_a_control_is_not_ranked(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1", is_control=True)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    assert ask("select score, rank, is_control from mart.head_ranking") == [(0.5, None, True)]


def test_of_two_deliveries_of_a_trial_the_answer_shows_and_both_stay_in_raw(lake: Lake, ask: Ask) -> None:
    for delivery_id, score in (("d1", 0.25), ("d2", 0.75)):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, {(0, 0): score})
    deliver_answer(lake, "s", "t1", "d2", minutes=2)
    assert ask("select score from mart.head_ranking") == [(0.75,)]
    assert ask("select delivery_id from mart.trials") == [("d2",)]
    assert ask("select score from raw.head_scores order by score") == [(0.25,), (0.75,)]


def test_a_reverted_answer_shows_the_earlier_delivery_again(lake: Lake, ask: Ask) -> None:
    for delivery_id, score in (("d1", 0.25), ("d2", 0.75)):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, {(0, 0): score})
    for minutes, delivery_id, score in ((1, "d1", 0.25), (2, "d2", 0.75), (3, "d1", 0.25)):
        deliver_answer(lake, "s", "t1", delivery_id, minutes)
        assert ask("select score from mart.head_ranking") == [(score,)]


def test_a_trial_of_two_studies_is_one_trial_and_says_both(lake: Lake, ask: Ask) -> None:
    for delivery_id in ("d1", "d2"):
        deliver_trial(lake, delivery_id)
        deliver_head_scores(lake, delivery_id, {(0, 0): 0.5})
    deliver_answer(lake, "first", "t1", "d2", minutes=5)
    deliver_answer(lake, "second", "t1", "d1", minutes=1)
    assert ask("select study, studies, delivery_id from mart.trials") == [("first", ["first", "second"], "d2")]
    assert ask("select count(*) from mart.head_ranking") == [(1,)]
    assert ask("select study, delivery_id, is_current from mart.study_trials order by study") == [
        ("first", "d2", True),
        ("second", "d1", False),
    ]


def test_a_delivery_that_answers_nothing_is_not_shown(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    assert ask("select * from mart.trials") == ask("select * from mart.head_ranking") == []


def test_a_failed_trial_is_in_trials_with_its_sentence_and_nowhere_else(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1", status="failed", error="why", seconds=None, forwards=None)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    assert ask("select status, error, seconds from mart.trials") == [("failed", "why", None)]
    assert ask("select * from mart.head_ranking") == []


def test_the_mlflow_run_is_found_by_study_model_promptset_and_seeds(lake: Lake, ask: Ask) -> None:
    for seed in (0, None):
        deliver_trial(lake, f"d{seed}", trial_id=f"t{seed}", promptset_seed=seed, level="behavior")
        deliver_answer(lake, "s", f"t{seed}", f"d{seed}")
        row = {"study": "s", "model": "tiny", "model_seed": 0, "promptset": "repeated_tokens", "promptset_seed": seed}
        frame = pl.DataFrame([row | {"mlflow_run_id": f"run{seed}", "recorded_at": NOON}])
        lake.deliver("recordings", f"r{seed}", frame)
    deliver_trial(lake, "dx", trial_id="tx", promptset_seed=7, level="behavior")
    deliver_answer(lake, "s", "tx", "dx")
    runs = ask("select promptset_seed, mlflow_run_id from mart.trials order by 1 nulls last")
    assert runs == [(0, "run0"), (7, None), (None, "runNone")]


def test_a_loss_has_no_accuracy_and_an_accuracy_has_both(full: duckdb.DuckDBPyConnection) -> None:
    rows = full.execute(
        "select distinct readout, accuracy is null, value is null, unit from mart.behavior order by readout"
    ).fetchall()
    assert rows == [("copy_accuracy", False, False, "fraction"), ("copy_loss", True, False, "nats")]


@pytest.mark.parametrize("name", ["head_ranking", "head_effects", "behavior", "controls"])
def test_the_number_of_clusters_and_the_flag_of_few_prompts_are_the_last_columns(
    name: str, full: duckdb.DuckDBPyConnection
) -> None:
    columns = [column for column, *_ in full.execute(f"describe mart.{name}").fetchall()]
    assert columns[-2:] == ["n_clusters", "is_descriptive"]
    assert full.execute(f"select distinct n_clusters from mart.{name}").fetchall() == [(8,)]


def test_fewer_than_thirty_prompts_are_descriptive_and_an_unknown_number_is_unknown(
    full: duckdb.DuckDBPyConnection,
) -> None:
    views = list_views()
    tables = full.execute("select table_name from duckdb_tables() where schema_name = 'raw'").fetchall()
    with duckdb.connect() as connection:  # the tables without their constraints
        connection.execute("create schema raw")
        for (table,) in tables:
            connection.register("filled", full.sql(f"from raw.{table}").to_arrow_table())
            connection.execute(f"create table raw.{table} as from filled")
        build_views(connection, views)
        with_counts = connection.execute(
            "select table_name from duckdb_columns() where schema_name = 'raw' and column_name = 'n_items'"
        ).fetchall()
        for n_items, is_descriptive in ((29, True), (30, False), (None, None)):
            for (table,) in with_counts:
                connection.execute(f"update raw.{table} set n_items = ?", [n_items])
            for name in OVER_PROMPTS:
                found = connection.execute(f"select distinct n_items, is_descriptive from mart.{name}").fetchall()
                assert (name, found) == (name, [(n_items, is_descriptive)])


def test_a_count_of_roles_is_descriptive_where_its_scores_are(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5, (0, 1): 0.1})  # of 20 prompts
    assert ask("select role, n_heads, is_descriptive from mart.role_counts") == [("induction", 1, True)]


@pytest.mark.parametrize(
    ("scores", "n_heads", "n_positive", "n_half"),
    [
        ([1.0] * 8, 8, 8, 4),
        ([9.0, 1, 1, 1, 1, 1, 1, 1, -5, 0], 10, 8, 1),
        ([1.0, 4, 2, 3], 4, 4, 2),
        ([8.0, None, 1, None], 2, 2, 1),
        ([-1.0, 0], 2, 0, None),
        ([None], None, None, None),
    ],
)
def test_half_of_the_scores_lies_in_few_heads_or_in_half_of_them(
    lake: Lake, ask: Ask, scores: list[float | None], n_heads: int | None, n_positive: int | None, n_half: int | None
) -> None:
    deliver_trial(lake, "d1", low=None, high=None)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, head): score for head, score in enumerate(scores)})
    found = ask("select n_heads, n_positive, n_half, concentration from mart.head_concentration")
    share = None if n_half is None or n_heads is None else n_half / n_heads
    assert found == ([] if n_heads is None else [(n_heads, n_positive, n_half, share)])


def test_prompts_that_are_not_clustered_have_no_number_of_clusters(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    assert ask("select n_items, n_clusters from mart.head_ranking") == [(20, None)]


def test_nan_in_a_raw_table_is_null_in_the_views() -> None:
    with duckdb.connect() as connection:
        _raw_tables(connection)
        build_views(connection, list_views())
        connection.execute("insert into raw.head_scores by name select 'd' as delivery_id, 'nan'::double as score")
        connection.execute("insert into raw.trials by name select 'd' as delivery_id, 'x' as unit")
        assert connection.execute("select score, unit from stg.head_scores").fetchall() == [(None, "x")]


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ("update raw.head_scores set score = 1.5", "every score lies in the range that its probe states"),
        ("update raw.head_scores set ci_low = 0.9", "ci_low is not above ci_high"),
        ("insert into raw.head_scores from raw.head_scores", "one row per trial_id, layer, head"),
        ("update raw.trials set model = null", "model is never NULL"),
        ("update raw.trials set seconds = -1", "seconds >= 0"),
        ("update raw.trials set error = 'why'", "a trial says why exactly when it was not delivered"),
        ("delete from raw.head_scores", "a delivered head trial has head scores"),
    ],
)
def test_a_broken_promise_is_found(home: Home, lake: Lake, change: str, promise: str) -> None:
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    publish(home)
    with duckdb.connect() as connection:
        connection.execute(f"attach '{home.warehouse}' as w (read_only)")
        _raw_tables(connection)
        for table in ("trials", "answers", "head_scores"):
            connection.execute(f"insert into raw.{table} from w.raw.{table}")
        build_views(connection, list_views())
        assert broken_promises(connection) == []
        connection.execute(change)
        assert any(promise in sentence for sentence in broken_promises(connection))


def _raw_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """The raw tables as in the warehouse, but with nothing forbidden."""
    from storage.merge import create_raw

    create_raw(connection)
    columns = connection.execute(
        "select table_name, column_name from duckdb_columns() where schema_name = 'raw' and not is_nullable"
        " and table_name not in ('files', 'meta')"
    ).fetchall()
    for table, column in columns:
        connection.execute(f"alter table raw.{table} alter column {column} drop not null")


def write_view(folder: Path, name: str, sql: str, yaml: str = "") -> None:
    path = folder / f"{name}.sql"
    path.parent.mkdir(exist_ok=True)
    path.write_text(sql)
    path.with_suffix(".yaml").write_text(yaml or "{description: a, grain: b, columns: [{name: x, text: y}]}")


def test_views_are_listed_after_what_they_read(tmp_path: Path) -> None:
    write_view(tmp_path, "stg/z", "select x from raw.t")
    write_view(tmp_path, "mart/a", "select x from mart.b -- not from mart.c")
    write_view(tmp_path, "mart/b", "select x from stg.z where x != 'mart.a'")
    assert [view.full_name for view in list_views(tmp_path)] == ["stg.z", "mart.b", "mart.a"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"mart/a": "from mart.b", "mart/b": "from mart.a"}, "views refer to each other in a circle: mart.a -> mart.b"),
        ({"mart/a": "from mart.c"}, "view mart.a refers to mart.c, which is no view"),
    ],
)
def test_circles_and_unknown_views_are_refused(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    for name, sql in files.items():
        write_view(tmp_path, name, sql)
    with pytest.raises(BadInput, match=sentence.split(":", maxsplit=1)[0]):
        list_views(tmp_path)


@pytest.mark.parametrize(
    "yaml",
    ["{description: a}", "{description: a, grain: b, columns: [], extra: 1}", "[", "{description: a, grain: b,"
     " columns: [], checks: [{promise: p}]}"],
)  # fmt: skip
def test_a_broken_description_is_refused_with_its_file(tmp_path: Path, yaml: str) -> None:
    write_view(tmp_path, "mart/a", "select 1", yaml)
    with pytest.raises(BadInput, match=r"mart/a\.yaml"):
        list_views(tmp_path)


def test_a_view_without_description_and_a_description_without_view_are_refused(tmp_path: Path) -> None:
    write_view(tmp_path, "mart/a", "select 1")
    (tmp_path / "mart/a.yaml").rename(tmp_path / "mart/b.yaml")
    with pytest.raises(BadInput, match=r"has no description: write a\.yaml beside it"):
        list_views(tmp_path)
    (tmp_path / "mart/a.sql").unlink()
    with pytest.raises(BadInput, match=r"describes no view: write b\.sql beside it"):
        list_views(tmp_path)


def test_marts_of_finished_models_do_not_show_the_steps_of_a_training(full: duckdb.DuckDBPyConnection) -> None:
    at_steps = "trial_id in (select trial_id from mart.trials where step is not null)"
    assert full.execute(f"select count(*) from mart.trials where {at_steps}").fetchone() == (9,)
    assert full.execute(f"select count(*) from mart.study_trials where {at_steps}").fetchone() == (9,)
    for mart in ("item_scores", "head_ranking", "head_effects", "behavior", "controls", "reliability"):
        assert full.execute(f"select count(*) from mart.{mart} where {at_steps}").fetchone() == (0,)


def test_the_dynamics_show_steps_and_training_and_no_finished_model(full: duckdb.DuckDBPyConnection) -> None:
    found = full.execute(
        "select variant, probe, measure, count(*), count(distinct step) from mart.dynamics group by all order by all"
    ).fetchall()
    assert found == [
        ("primary", "copy_accuracy", "copy_accuracy", 3, 3),
        ("primary", "copy_loss", "copy_loss", 3, 3),
        ("primary", "induction", "induction", 3, 3),
        ("primary", "induction", "induction_mean", 3, 3),
        ("training", None, "copy_accuracy", 3, 3),
        ("training", None, "loss", 3, 3),
    ]
    assert full.execute(
        "select model, model_seed, promptset, trial_id, unit, step, value, ci_low from mart.dynamics"
        " where variant = 'training' and measure = 'loss' and step = 100"
    ).fetchall() == [("tiny_gpt2", 0, None, "tiny-training", "nats", 100, 1.5, None)]


def test_a_head_probe_gives_its_best_head_with_interval_and_the_mean_of_its_heads(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1", step=8)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.2, (1, 1): 0.5, (1, 0): 0.5, (0, 1): math.nan})
    assert ask("select step, measure, value, ci_low, ci_high, n_items from mart.dynamics order by measure") == [
        (8, "induction", 0.5, 0.45, 0.55, 20),
        (8, "induction_mean", pytest.approx(0.4), None, None, 20),
    ]


def test_heads_of_which_none_could_be_measured_give_null_not_zero(lake: Lake, ask: Ask) -> None:
    deliver_trial(lake, "d1", step=8)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): math.nan, (0, 1): math.nan})
    assert ask("select measure, value from mart.dynamics order by measure") == [
        ("induction", None),
        ("induction_mean", None),
    ]


def test_a_retrained_model_replaces_its_curve(lake: Lake, ask: Ask) -> None:
    for value in (0.25, 0.75):
        rows = [training_row(step, "copy_accuracy", value=value) for step in (0, 1)]
        lake.deliver("training", "tiny-training", pl.DataFrame(rows, infer_schema_length=None))
    assert ask("select step, value from mart.dynamics order by step") == [(0, 0.75), (1, 0.75)]
