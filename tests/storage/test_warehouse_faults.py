"""Damaged, missing, locked, later: the warehouse says what is wrong, mends what it can and loses nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from storage.duck import WarehouseError
from storage.home import Home
from storage.lake import QUARANTINE
from storage.parquet import LAYOUT, sealed_bytes
from storage.warehouse import publish
from tests.storage.published import ask, contents, one_trial
from tests.storage.rows import deliver_head_scores

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_truncated_lake_file_is_set_aside_with_a_warning_and_the_rest_is_published(home: Home, size: int) -> None:
    lake = one_trial(home)
    deliver_head_scores(lake, "d2", {(0, 0): 0.5})
    path = lake.folder / "head_scores/d2.parquet"
    path.write_bytes(path.read_bytes()[:size])
    (warning,) = publish(home).warnings
    assert "head_scores/d2.parquet is damaged" in warning
    assert [each.name for each in (lake.folder / QUARANTINE).iterdir()] == ["head_scores--d2.parquet"]
    assert ask(home, "select distinct delivery_id from raw.head_scores") == [("d1",)]


def test_an_altered_lake_file_that_still_parses_never_reaches_a_reader(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    frame = pl.read_parquet(lake.folder / "head_scores/d1.parquet")
    frame.with_columns(score=pl.lit(0.99)).write_parquet(lake.folder / "head_scores/d1.parquet")
    assert "head_scores/d1.parquet" in publish(home).warnings[0]
    assert ask(home, "select count(*) from raw.head_scores") == [(0,)]
    one_trial(home)
    assert publish(home).warnings == ()
    assert ask(home, "select score from mart.head_ranking") == [(0.5,)]


def test_a_damaged_warehouse_is_rebuilt_from_the_lake(home: Home) -> None:
    one_trial(home)
    publish(home)
    before, whole, draw = contents(home), home.warehouse.read_bytes(), random.Random(1)
    for damaged in (b"", whole[:5000], whole[:-4096], b"\0" * len(whole)):
        home.warehouse.write_bytes(damaged)
        home.results.unlink()  # so that all of the warehouse is read
        assert "was damaged: it is rebuilt from the lake" in publish(home).warnings[0]
        assert contents(home) == before
    for place in draw.sample(range(len(whole)), 3):
        home.warehouse.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        home.results.unlink()
        publish(home)
        assert contents(home) == before


def test_a_missing_truncated_or_stale_copy_is_published_again(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    stale = home.results.read_bytes()
    deliver_head_scores(lake, "d1", {(0, 0): 0.75})
    publish(home)
    for damage in (
        home.results.unlink,
        lambda: home.results.write_bytes(b"x"),
        lambda: home.results.write_bytes(stale),
    ):
        damage()
        assert publish(home).is_copied
        assert ask(home, "select score from mart.head_ranking") == [(0.75,)]


def test_a_warehouse_held_by_another_process_is_said_with_its_number(home: Home) -> None:
    one_trial(home)
    publish(home)
    hold = (
        f"import duckdb, sys; c = duckdb.connect({str(home.warehouse)!r}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseError, match=f"is open for writing in process {holder.pid}: close it there"):
            publish(home)
        assert ask(home, "select score from mart.head_ranking") == [(0.5,)]
        holder.communicate("")
    assert publish(home).n_files_merged == 0


def test_a_warehouse_of_a_later_version_is_left_alone(home: Home) -> None:
    one_trial(home)
    publish(home)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("update raw.meta set value = '99' where name = 'layout'")
    before = home.warehouse.read_bytes()
    with pytest.raises(WarehouseError, match=rf"later version of Mneme \(layout 99, this one knows {LAYOUT}\): update"):
        publish(home)
    assert home.warehouse.read_bytes() == before


def test_a_warehouse_with_columns_of_another_version_is_rebuilt_from_the_lake(home: Home) -> None:
    one_trial(home)
    publish(home)
    before = contents(home)
    with duckdb.connect(str(home.warehouse)) as connection:
        for (view,) in connection.execute("select schema_name || '.' || view_name from duckdb_views()").fetchall():
            if view.startswith(("mart.", "stg.")):
                connection.execute(f"drop view {view}")
        connection.execute("alter table raw.head_scores drop column n_items")
        connection.execute("update raw.meta set value = 'of before' where name in ('tables', 'views')")
    publish(home)
    assert contents(home) == before


def test_a_lake_file_of_a_later_version_is_left_alone(home: Home) -> None:
    lake = one_trial(home)
    path = lake.folder / "head_scores/d1.parquet"
    marks = [f"mneme-layout:{layout:04d}".encode() for layout in (LAYOUT, LAYOUT + 1)]
    path.write_bytes(path.read_bytes().replace(*marks))
    with pytest.raises(WarehouseError, match="later version of Mneme: update Mneme"):
        publish(home)
    assert path.exists()


def test_a_warehouse_of_an_earlier_layout_is_rebuilt(home: Home) -> None:
    one_trial(home)
    publish(home)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("update raw.meta set value = '0' where name = 'layout'")
    assert publish(home).n_files_merged == 3


def test_a_full_disk_is_one_sentence_and_the_next_publish_completes(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    before = home.results.read_bytes()
    for number in range(5):
        rows = [{"layer": 0, "head": 0, "item": item, "value": random.random()} for item in range(20_000)]
        frame = pl.DataFrame(rows).with_columns(pl.lit(f"x{number}").alias("delivery_id"))
        lake.deliver("item_scores", f"x{number}", frame)
    limited = (
        "import resource, sys; from pathlib import Path; from storage.home import Home\n"
        "from storage.duck import WarehouseError; from storage.warehouse import publish\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))\n"
        "try: publish(Home(Path(sys.argv[1])))\n"
        "except WarehouseError as error: print(error); sys.exit(3)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", limited, str(home.root)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stdout.count("\n")) == (3, 1), run.stdout + run.stderr
    assert "is full: free some space and run again" in run.stdout
    assert home.results.read_bytes() == before
    publish(home)
    assert ask(home, "select count(*) from raw.item_scores") == [(100_000,)]


def test_a_whole_file_that_fits_no_table_is_set_aside(home: Home) -> None:
    lake = one_trial(home)
    for name, frame in (
        ("nowhere/d1.parquet", pl.DataFrame({"delivery_id": ["d1"]})),
        ("behavior/d1.parquet", pl.DataFrame({"delivery_id": ["d1"], "colour": ["red"]})),
    ):
        (lake.folder / name).parent.mkdir()
        (lake.folder / name).write_bytes(sealed_bytes(name, frame))
    assert [warning.split(" ")[2] for warning in publish(home).warnings] == [
        "behavior/d1.parquet",
        "nowhere/d1.parquet",
    ]
    assert ask(home, "select count(*) from mart.head_ranking") == [(1,)]


def test_what_nobody_delivered_is_set_aside_or_passed_over_and_the_rows_stay(home: Home) -> None:
    lake = one_trial(home)
    publish(home)
    before = contents(home)
    (lake.folder / "trials" / "folder.parquet").mkdir()
    (lake.folder / "trials" / "loop.parquet").symlink_to("loop.parquet")
    (lake.folder / "trials" / "a\nb'\".parquet").write_bytes(b"x")
    (lake.folder / "x; drop").mkdir()
    (lake.folder / "x; drop" / "a.parquet").write_bytes(b"x")
    with open(os.fsencode(lake.folder / "trials") + b"/\xff.parquet", "wb") as file:  # noqa: PTH123  a name that is no text
        file.write(b"x")
    assert len(publish(home).warnings) == 3
    assert contents(home) == before
