"""The SQL door reads the results and nothing else, and says what is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from mneme.errors import BadInput
from storage.home import Home
from storage.reader import query, views
from storage.rows import rows
from storage.warehouse import publish
from tests.storage.rows import fill

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    fill(home)
    publish(home)
    return home


def test_a_table_is_aligned_with_four_digits_null_and_a_count(home: Home) -> None:
    text = query(home, "select 'a' as name, 0.123456 as score, null as gone, 7 as n union all select 'bb', 12, 1, 10")
    assert text == (
        "name   score  gone   n\n----  ------  ----  --\na     0.1235  NULL   7\nbb        12     1  10\n(2 rows)\n"
    )


def test_long_texts_and_long_answers_are_cut_and_said_so(home: Home) -> None:
    assert "x" * 57 + "...\n" in query(home, "select repeat('x', 100) as long")
    text = query(home, "from range(300)")
    assert text.endswith("(the first 200 rows; -o FILE gets all)\n")
    assert text.count("\n") == 203


def test_a_view_is_found_with_and_without_its_schema(home: Home) -> None:
    best = "select layer, head, rank from {} where probe = 'induction' order by rank, model limit 1"
    expected = [{"layer": 5, "head": 1, "rank": 1}]
    assert json.loads(query(home, best.format("mart.head_ranking"), "json")) == expected
    assert json.loads(query(home, best.format("head_ranking"), "json")) == expected


def test_csv_keeps_all_digits_and_leaves_null_empty(home: Home) -> None:
    rows = list(csv.reader(io.StringIO(query(home, "select 0.1::double / 3 as a, null as b, [1, 2] as c", "csv"))))
    assert rows == [["a", "b", "c"], [repr(0.1 / 3), "", "[1, 2]"]]


def test_json_says_null_for_what_is_no_number(home: Home) -> None:
    sql = "select 'nan'::double as a, 1.5::decimal(4, 2) as b, timestamp '2026-01-01' as c, 1 as a, {'k': [1]} as d"
    assert json.loads(query(home, sql, "json")) == [
        {"a": None, "b": 1.5, "c": "2026-01-01 00:00:00", "a_2": 1, "d": {"k": [1]}}
    ]
    assert query(home, "select 1 where false", "json") == "[]\n"


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_a_file_gets_every_row(home: Home, format: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{format}"
    assert query(home, "select range as n, range as n from range(30000)", format, output) == f"30000 rows in {output}\n"
    if format == "parquet":
        assert pl.read_parquet(output)["n_2"].to_list() == list(range(30000))
    assert "29999" in output.read_text(encoding="utf-8", errors="ignore") or format == "parquet"
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_parquet_needs_a_file(home: Home) -> None:
    with pytest.raises(BadInput, match="name a file with -o"):
        query(home, "select 1", "parquet")


@pytest.mark.parametrize(
    "sql",
    [
        "with x as (select 1 as a) select a from x",
        "describe mart.trials",
        "show tables",
        "summarize mart.reliability",
        "explain select * from mart.trials",
        "from mart.trials",
        "values (1)",
    ],
)
def test_every_way_of_reading_is_open(home: Home, sql: str) -> None:
    assert query(home, sql).count("\n") > 2


@pytest.mark.parametrize(
    "sql",
    [
        "create table t (a int)",
        "create temp table t (a int)",
        "drop view mart.trials",
        "delete from raw.trials",
        "insert into raw.trials select * from raw.trials",
        "update raw.trials set model = 'x'",
        "copy mart.trials to '{}/out.csv'",
        "export database '{}/out'",
        "attach '{}/other.duckdb'",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "call pragma_version()",
        "set enable_external_access = true",
        "reset lock_configuration",
        "select * from read_csv('{}/secret.csv')",
        "select * from read_text('{}/secret.csv')",
        "select * from '{}/secret.csv'",
        "select * from glob('{}/*')",
        "select * from sniff_csv('{}/secret.csv')",
        "select * from parquet_metadata('{}/secret.csv')",
        "with x as (insert into raw.trials select * from raw.trials returning *) select * from x",
        "select * from home",
        "select * from connection",
        "use memory",
        "begin",
        "checkpoint",
        "select nextval('x')",
    ],
)
def test_nothing_but_the_results_can_be_reached(home: Home, sql: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    before = home.results.read_bytes()
    with pytest.raises(BadInput) as refusal:
        query(home, sql.format(tmp_path, tmp_path))
    assert "secret\n1" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert home.results.read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("select 1; select 2", "one SQL statement at a time, please: these are 2"),
        ("  ", "one SQL statement at a time, please: there is none"),
        ("selct 1", 'syntax error at or near "selct"\nLINE 1: selct 1'),
        ("select * from mart.head_rankings", "there is no view 'head_rankings'; did you mean 'mart.head_ranking'"),
        ("select * from trails", "there is no view 'trails'; did you mean 'mart.trials'"),
        ("select scor from mart.head_ranking", 'Referenced column "scor" not found in FROM clause!\nCandidate'),
        ("select cast('x' as int)", "Could not convert string 'x' to INT32"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(home: Home, sql: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        query(home, sql)
    assert sentence in str(refusal.value)
    assert "Traceback" not in str(refusal.value)


def test_an_unknown_format_has_near_names(home: Home) -> None:
    with pytest.raises(BadInput, match="unknown format 'jsn'; did you mean 'json'"):
        query(home, "select 1", "jsn")


def test_an_output_that_cannot_be_written_is_said(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write .*/file/out\.csv \(.*\): name another file with -o"):
        query(home, "select 1", "csv", tmp_path / "file" / "out.csv")


def test_without_results_the_next_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there are no results in .* yet: run `mneme run quickstart`"):
        query(Home(tmp_path), "select 1")


def test_a_damaged_copy_is_said_with_the_mend(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.results.write_bytes(b"no database")
    with pytest.raises(BadInput, match=r"cannot be opened: .*; run `mneme rebuild`"):
        query(home, "select 1")


def test_views_are_described_with_and_without_results(home: Home, tmp_path: Path) -> None:
    assert "mart.head_ranking  (one row per trial, layer and head)\n" in views(Home(tmp_path))
    (counted,) = rows(home, "select count(*) as n from mart.trials")
    assert f"mart.trials  (one row per trial, {counted['n']} now)\n" in views(home)


@pytest.mark.parametrize("name", ["head_ranking", "mart.head_ranking"])
def test_one_view_is_described_with_columns_and_units(tmp_path: Path, name: str) -> None:
    text = views(Home(tmp_path), name)
    assert "Grain: one row per trial, layer and head." in text
    assert "n_items         Prompts that entered the mean; NULL where the weights alone were read. [prompts]" in text


def test_an_unknown_view_has_near_names(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no view 'headranking'; did you mean 'mart\.head_ranking'"):
        views(Home(tmp_path), "headranking")


def test_a_question_imports_neither_polars_nor_torch_and_is_quick(home: Home) -> None:
    heavy = ["torch", "prefect", "mlflow", "polars", "pyarrow", "pandera", "pydantic", "yaml", "numpy"]
    code = (
        "import sys; from pathlib import Path; from storage.home import Home; from storage.reader import query\n"
        f"print(query(Home(Path({str(home.root)!r})), 'from mart.head_ranking order by rank limit 5', 'csv'))\n"
        f"sys.exit(', '.join(sorted(set({heavy}) & set(sys.modules))) or 0)"
    )
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert time.monotonic() - started < 5
