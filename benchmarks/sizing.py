"""What a large home costs: seconds and bytes of the lake by file, and of a warehouse of many head scores.

    python -m benchmarks.sizing --folder /tmp/sizing                          # 100 million head scores
    python -m benchmarks.sizing --folder /tmp/sizing --scores 1000000 --deliveries 100

The lake is written, merged and published through the doors that a study uses. The warehouse of many scores is filled
inside DuckDB with made-up rows of the same shape: 50 promptsets, models of 1024 heads, two probes of heads; writing its
files one by one would take days. Each step is printed as it ends, with its wall and processor seconds and the most
memory that the process has held so far, and kept in `sizing.json` of the folder. Small memory is slower, not wrong:
DuckDB spills into files beside the warehouse.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.sizing_rows import FILL, QUESTIONS, deliver, fill_counts
from storage.duck import open_results
from storage.home import Home
from storage.lake import Lake
from storage.merge import create_raw, merge, new_generation
from storage.views import broken_promises, build_views, list_views
from storage.warehouse import _copy, publish

_SETTLED_SECONDS = 3.0  # by then a file has a stamp


class Steps:
    """The measured steps, printed and saved one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()

    @contextmanager
    def step(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Time a step; the caller may add facts to what is yielded."""
        row: dict[str, Any] = {"step": name, **facts}
        wall, cpu = time.monotonic(), time.process_time()
        yield row
        row |= {"seconds": round(time.monotonic() - wall, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
        row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        self.rows.append(row)
        self.path.write_text(json.dumps(self.rows, indent=1))
        print(json.dumps(row), flush=True)


def measure_lake(steps: Steps, home: Home, n_deliveries: int) -> None:
    """Write and publish deliveries of 1024 heads, four files each, as a study does; then publish nothing new."""
    lake = Lake(home.lake)
    for first, last in ((0, n_deliveries // 4), (n_deliveries // 4, n_deliveries)):
        with steps.step("deliver", deliveries=last - first) as row:
            for number in range(first, last):
                deliver(lake, number)
            row["lake_bytes_per_table"] = {
                table: sum(path.stat().st_size for path in (lake.folder / table).iterdir()) for table in lake.tables()
            }
        with steps.step("publish what is new", files=len(lake.files())) as row:
            publish(home)
            row |= {"warehouse_bytes": home.warehouse.stat().st_size, "copy_bytes": home.results.stat().st_size}
        with steps.step("publish nothing new", files=len(lake.files())):
            publish(home)
    time.sleep(_SETTLED_SECONDS)
    with duckdb.connect(str(home.warehouse)) as connection:
        for how, recheck in (("every file read", True), ("stamps compared", False)):
            with steps.step(f"compare the lake, {how}", files=len(lake.files())):
                merge(connection, lake, recheck=recheck)


def measure_warehouse(steps: Steps, home: Home, n_scores: int, memory: str, most_seconds: float) -> None:
    """Fill a warehouse, check its promises, publish its copy, ask its marts."""
    home.warehouse.parent.mkdir(parents=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        _limit(connection, memory, home)
        create_raw(connection)
        new_generation(connection)
        build_views(connection, list_views())
        for table, sql in FILL.items():
            with steps.step(f"load {table}", rows=fill_counts(n_scores)[table]):
                connection.execute(sql, [n_scores])
        with steps.step("checkpoint") as row:
            connection.execute("checkpoint")
            row["bytes"] = home.warehouse.stat().st_size
        for view in list_views():
            with steps.step(f"promises of {view.full_name}") as row, interrupted(connection, most_seconds, row):
                row["broken"] = broken_promises(connection, [view])
    with steps.step("copy for readers") as row:
        _copy(home)
        row["bytes"] = home.results.stat().st_size
    with open_results(home.results) as connection:
        _limit(connection, memory, home)
        for question, sql in QUESTIONS.items():
            with steps.step(question) as row, interrupted(connection, most_seconds, row):
                row["rows"] = len(connection.execute(sql).fetchall())


@contextmanager
def interrupted(connection: duckdb.DuckDBPyConnection, seconds: float, row: dict[str, Any]) -> Iterator[None]:
    """End a question that takes too long, and say so in its row."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        with suppress(duckdb.InterruptException):
            yield
            return
        row["interrupted"] = True
    except duckdb.OutOfMemoryException as error:
        row["out_of_memory"] = str(error).splitlines()[0]
    finally:
        timer.cancel()


def _limit(connection: duckdb.DuckDBPyConnection, memory: str, home: Home) -> None:
    with suppress(duckdb.Error):  # a reader may not say where it spills
        connection.execute(f"set temp_directory = '{home.root / 'spilled'}'")
    connection.execute(f"set memory_limit = '{memory}'")


def main() -> None:
    """Measure both in a folder that is emptied first, and remove what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scores", type=int, default=100_000_000)
    parser.add_argument("--deliveries", type=int, default=400)
    parser.add_argument("--memory", default="6GB")
    parser.add_argument("--most-seconds", type=float, default=600.0, help="for one question")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    steps = Steps(asked.folder / "sizing.json")
    for name, measured in (
        ("lake", lambda home: measure_lake(steps, home, asked.deliveries)),
        ("warehouse", lambda home: measure_warehouse(steps, home, asked.scores, asked.memory, asked.most_seconds)),
    ):
        home = Home(asked.folder / name)
        shutil.rmtree(home.root, ignore_errors=True)
        home.root.mkdir()
        measured(home)
        shutil.rmtree(home.root)


if __name__ == "__main__":
    main()
