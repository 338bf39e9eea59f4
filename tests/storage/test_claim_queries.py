"""The SQL of claims reads marts and nothing else, and is refused before anything is computed when it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mneme.errors import BadInput
from storage.claim_queries import refuse_bad_claims, units_of
from storage.home import Home
from storage.lake import Lake
from storage.reader import reading, reading_part
from storage.specs import ClaimSpec
from storage.studies import load_study
from storage.warehouse import publish
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial

GOOD = "select trial_id as unit_id, value from mart.behavior"


def claim(found: str, control: str | None = None) -> dict[str, ClaimSpec]:
    return {"early": ClaimSpec(found=found, control=control, expected="above", unit="nats")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A trial t1, and t2, which another run of the same study asked."""
    home = Home(tmp_path_factory.mktemp("it's home"))
    lake = Lake(home.lake)
    deliver_head_scores(lake, "d1", {(0, 0): 0.25, (0, 1): math.nan, (1, 0): 0.5})
    deliver_head_scores(lake, "d2", {(0, 0): 0.75})
    for trial, delivery in (("t1", "d1"), ("t2", "d2")):
        deliver_trial(lake, delivery, trial_id=trial)
        deliver_answer(lake, "s", trial, delivery)
    publish(home)
    return home


@pytest.fixture
def marts(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The marts of t1."""
    with reading_part(home, ["t1", "nobody"]) as connection:
        yield connection


@pytest.mark.parametrize(
    "sql",
    [
        GOOD,
        f"{GOOD};",
        f"{GOOD} -- the loss",
        "with s as (select * from head_ranking) select concat(layer, head) as unit_id, score as value from s",
        "select model_seed as unit_id, avg(value) > 0.5 as value from mart.behavior group by model_seed",
    ],
)
def test_a_select_of_units_and_numbers_is_taken(sql: str) -> None:
    refuse_bad_claims("s", claim(sql, control=sql))


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("selec 1", "cannot be asked: Parser Error: syntax error at or near"),
        (
            "select 1 as unit_id, nope as value from mart.trials",
            'cannot be asked: Binder Error: Referenced column "nope"',
        ),
        ("select trial_id as unit_id, value from mart.behaviour", "no view 'behaviour'; did you mean 'mart.behavior'"),
        ("select trial_id as unit_id, 1 as value from raw.trials", "cannot be asked: there is no view"),
        ("select trial_id as unit_id, 1 as value from query('from raw.trials')", "cannot be asked: there is no view"),
        ("select 1 as unit_id, 1 as value from read_csv('/etc/passwd')", "cannot be asked: Permission Error"),
        ("drop view mart.trials", "is refused: results are only read here"),
        (f"{GOOD}; {GOOD}", "is refused: one SQL statement at a time"),
        ("select 1 as value", "must give the columns unit_id and value, and gives value"),
        (
            "select 1 as unit_id, 2 as value, 3 as n",
            "must give the columns unit_id and value, and gives unit_id, value, n",
        ),
        (
            "select trial_id as unit_id, unit as value from mart.behavior",
            "must give a number as value, and gives VARCHAR",
        ),
    ],
)
def test_a_select_that_cannot_be_asked_is_refused_with_the_study_and_the_claim(sql: str, problem: str) -> None:
    for side, claims in (("found", claim(sql)), ("control", claim(GOOD, control=sql))):
        with pytest.raises(BadInput) as refused:
            refuse_bad_claims("s", claims)
        assert str(refused.value).startswith(f"study s, claim early: `{side}` ")
        assert problem in str(refused.value)
        assert "\n" not in str(refused.value)


def test_null_is_missing_and_units_are_texts(marts: duckdb.DuckDBPyConnection) -> None:
    units = units_of(marts, "select layer * 10 + head as unit_id, score as value from mart.head_ranking -- by head")
    assert (units["0"], units["10"], sorted(units)) == (0.25, 0.5, ["0", "1", "10"])
    assert math.isnan(units["1"])


def test_a_claim_sees_the_trials_of_its_study_and_no_other(home: Home) -> None:
    best = "select trial_id as unit_id, max(score) as value from head_ranking group by trial_id"
    for ids, found in (
        (["t1"], {"t1": 0.5}),
        (["t2"], {"t2": 0.75}),
        (["t1", "t2"], {"t1": 0.5, "t2": 0.75}),
        ([], {}),
    ):
        with reading_part(home, ids) as marts:
            assert units_of(marts, best) == found
            assert len(units_of(marts, "select trial_id as unit_id, 1 as value from mart.study_trials")) == len(ids)


def test_every_mart_that_names_trials_is_cut_to_them(home: Home) -> None:
    with reading(home) as whole, reading_part(home, []) as part:
        found = whole.execute(
            "select table_name, column_name from duckdb_columns() where schema_name = 'mart'"
        ).fetchall()
        views = {view for view, _ in found}
        assert {
            view
            for (view,) in part.execute(
                "select view_name from duckdb_views() where not internal and database_name = 'memory'"
            ).fetchall()
        } == views
        for view in {view for view, column in found if column == "trial_id"}:
            assert part.execute(f"select count(*) from mart.{view}").fetchone() == (0,)
        assert views - {view for view, column in found if column == "trial_id"} == {"comparisons", "phase_changes"}


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/hostname')",
        "attach '/tmp/other.duckdb'",
        "create table results.mart.mine as select 1",
        "set enable_external_access = true",
        "copy (select 1) to '/tmp/out.csv'",
    ],
)
def test_nothing_but_the_results_is_in_reach(marts: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(duckdb.Error):
        marts.execute(sql)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("select layer as unit_id, score as value from mart.head_ranking", "gives unit '0' twice"),
        ("select null as unit_id, 1 as value", "gives a row without a unit_id"),
        ("select 1 as unit_id, cast(model as double) as value from mart.trials", "fails: Conversion Error"),
    ],
)
def test_rows_that_are_no_units_are_refused(marts: duckdb.DuckDBPyConnection, sql: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        units_of(marts, sql)


STUDY = """
models: [quick]
promptsets: [repeated_tokens]
probes: [induction]
claims:
  early: {{found: "{found}", expected: {expected}, margin: {margin}, unit: nats{more}}}
"""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"found": "select 1"}, "study mine, claim early: `found` must give the columns unit_id and value"),
        ({"expected": "higher"}, "study mine: 'claims.early.expected'"),
        ({"expected": "within"}, "study mine: 'claims.early': 'within' needs a margin above 0"),
        ({"margin": -1}, "study mine: 'claims.early.margin'"),
        ({"more": ", sql: x"}, "study mine: unknown key 'claims.early.sql'"),
    ],
)
def test_a_study_with_a_bad_claim_is_not_loaded(configs: Path, changes: dict[str, object], sentence: str) -> None:
    good = {"found": GOOD, "expected": "above", "margin": 0, "more": ""}
    (configs / "studies" / "mine.yaml").write_text(STUDY.format(**good))
    assert load_study("mine").spec.claims["early"].level == 0.95
    (configs / "studies" / "mine.yaml").write_text(STUDY.format(**(good | changes)))
    with pytest.raises(BadInput) as refused:
        load_study("mine")
    assert str(refused.value).startswith(sentence)


def test_a_claim_is_changed_from_the_command_line(configs: Path) -> None:
    (configs / "studies" / "mine.yaml").write_text(STUDY.format(found=GOOD, expected="above", margin=0, more=""))
    assert load_study("mine", ["claims.early.margin=0.25"]).spec.claims["early"].margin == 0.25


def test_a_measure_is_searched_for_a_phase_change_once() -> None:
    settings = {"phase_changes": {"measures": ["induction", "induction"]}}
    with pytest.raises(BadInput, match="the same measure stands there twice"):
        load_study("quickstart", settings)
    assert load_study("quickstart").spec.phase_changes is None
