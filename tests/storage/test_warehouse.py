"""What publish promises: all of the lake, once, whole."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish, rebuild
from tests.storage.published import ask, contents, one_trial
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial, fill, trial_row

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_everything_delivered_is_published_and_promises_hold(home: Home) -> None:
    fill(home)
    published = publish(home)
    assert (published.promises_broken, published.warnings) == ((), ())
    assert published.n_files_merged == len(Lake(home.lake).files())
    assert published.n_rows == sum(n for (n,) in ask(home, "select n_rows from raw.files")) > 500
    assert ask(home, "select count(*) from mart.trials where status = 'delivered'") == [(33,)]


def test_publishing_again_changes_nothing(home: Home) -> None:
    one_trial(home)
    publish(home)
    before = home.results.stat()
    again = publish(home)
    assert (again.n_files_merged, again.n_rows, again.is_copied) == (0, 0, False)
    assert home.results.stat().st_ino == before.st_ino


def test_an_empty_home_publishes_empty_views(home: Home) -> None:
    assert publish(home).n_files_merged == 0
    assert ask(home, "select count(*) from mart.head_ranking") == [(0,)]


def test_a_replaced_file_replaces_its_rows(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    deliver_head_scores(lake, "d1", {(0, 0): 0.75, (0, 1): 0.25})
    assert publish(home).n_files_merged == 1
    assert ask(home, "select layer, head, score from raw.head_scores order by head") == [(0, 0, 0.75), (0, 1, 0.25)]


def test_a_vanished_file_takes_its_rows_with_it(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    lake.forget("d1")
    assert publish(home).is_copied
    assert ask(home, "select count(*) from raw.trials") == ask(home, "select count(*) from raw.files") == [(0,)]


def test_the_times_of_a_trial_are_utc_whatever_the_clock_of_the_machine(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    one_trial(home)
    publish(home)
    assert ask(home, "select delivered_at::varchar from mart.trials") == [("2026-01-01 12:00:00",)]


def test_a_delivery_without_its_rows_breaks_a_promise_that_is_named(home: Home) -> None:
    lake = Lake(home.lake)
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    assert publish(home).promises_broken == ("mart.trials: a delivered head trial has head scores is broken by 1 row",)


def test_the_warehouse_can_be_deleted_at_any_time(home: Home) -> None:
    fill(home)
    publish(home)
    before = contents(home)
    home.warehouse.unlink()
    home.results.unlink()
    assert publish(home).is_copied
    assert contents(home) == before


def test_a_rebuilt_warehouse_equals_the_merged_one(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    deliver_head_scores(lake, "d1", {(0, 0): 0.75})
    fill(home)
    publish(home)
    before = contents(home)
    rebuild(home)
    assert contents(home) == before


def test_readers_keep_their_copy_while_a_new_one_is_published(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    with duckdb.connect(str(home.results), read_only=True) as reader:
        deliver_head_scores(lake, "d1", {(0, 0): 0.75})
        publish(home)
        assert reader.execute("select score from mart.head_ranking").fetchall() == [(0.5,)]
    assert ask(home, "select score from mart.head_ranking") == [(0.75,)]


def test_the_copy_is_written_for_older_clients(home: Home) -> None:
    one_trial(home)
    publish(home)
    with duckdb.connect(str(home.results), read_only=True) as connection:
        (tags,) = connection.execute("select tags from duckdb_databases() where not internal").fetchone() or ({},)
    assert "v1.2" in str(tags)


def test_a_trial_row_is_stored_as_it_was_delivered(home: Home) -> None:
    one_trial(home)
    publish(home)
    row = trial_row("d1")
    columns = ", ".join(row)
    (stored,) = ask(home, f"select {columns} from raw.trials")
    expected = row | {"delivered_at": row["delivered_at"].replace(tzinfo=None)}
    assert dict(zip(row, stored, strict=True)) == expected
