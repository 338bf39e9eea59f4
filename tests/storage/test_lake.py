"""The lake keeps whole files, once, under plain names."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import polars as pl
import pytest

from mneme.errors import BadInput, MnemeError
from storage.lake import Lake
from storage.parquet import LaterLayout, TornFile, sealed_bytes, sealed_frame
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial

ROWS = pl.DataFrame({"delivery_id": ["d"], "layer": [None], "head": [None], "item": [0], "value": [0.5]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_the_same_rows_leave_the_file_untouched(lake: Lake) -> None:
    first = lake.deliver("item_scores", "d", ROWS)
    before = (lake.folder / first.path).stat()
    assert lake.deliver("item_scores", "d", ROWS) == first
    after = (lake.folder / first.path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (first.path, first.n_rows) == ("item_scores/d.parquet", 1)


def test_new_rows_of_a_key_replace_the_old(lake: Lake) -> None:
    first = lake.deliver("item_scores", "d", ROWS)
    second = lake.deliver("item_scores", "d", ROWS.with_columns(value=pl.lit(0.75)))
    assert lake.files() == [first.path]
    assert lake.intact(second)
    assert not lake.intact(first)


def test_a_deleted_or_altered_file_is_not_intact_and_comes_back_when_delivered(lake: Lake) -> None:
    delivered = lake.deliver("item_scores", "d", ROWS)
    path = lake.folder / delivered.path
    for damage in (path.unlink, lambda: path.write_bytes(path.read_bytes()[:-1] + b"x")):
        damage()
        assert not lake.intact(delivered)
        assert lake.deliver("item_scores", "d", ROWS) == delivered
        assert lake.intact(delivered)


@pytest.mark.parametrize("key", ["", "../d", "a/b", "a b", ".hidden", "é", "x" * 201])
def test_a_key_that_is_no_plain_file_name_is_refused(lake: Lake, key: str) -> None:
    with pytest.raises(BadInput, match="cannot name a file"):
        lake.deliver("item_scores", key, ROWS)
    assert lake.files() == []


def test_rows_of_another_delivery_are_refused(lake: Lake) -> None:
    with pytest.raises(BadInput, match="holds rows of another delivery"):
        lake.deliver("item_scores", "other", ROWS)


def test_an_answer_is_written_only_when_it_changes(lake: Lake) -> None:
    first = lake.answer("study", "t1", "d1")
    assert lake.answer("study", "t1", "d1") == first
    second = lake.answer("study", "t1", "d2")
    assert second.path == first.path == "answers/study--t1.parquet"
    assert second.sha256 != first.sha256


def test_a_damaged_answer_is_written_anew(lake: Lake) -> None:
    path = lake.folder / lake.answer("study", "t1", "d1").path
    path.write_bytes(b"PAR1")
    assert lake.intact(lake.answer("study", "t1", "d1"))


def test_forgetting_removes_the_rows_and_the_answers_that_name_them(lake: Lake) -> None:
    for name in ("d1", "d2"):
        deliver_trial(lake, name)
        deliver_head_scores(lake, name, {(0, 0): 0.5})
    deliver_answer(lake, "one", "t1", "d1")
    deliver_answer(lake, "two", "t1", "d2")
    assert lake.forget("d1") == 3
    assert lake.files() == ["answers/two--t1.parquet", "head_scores/d2.parquet", "trials/d2.parquet"]


def test_every_altered_byte_and_every_cut_is_found_out() -> None:
    data, draw = sealed_bytes("item_scores/d.parquet", ROWS), random.Random(0)
    assert sealed_frame("item_scores/d.parquet", data).equals(ROWS)
    for place in draw.sample(range(len(data)), 200):
        for damaged in (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], data[:place]):
            with pytest.raises((TornFile, LaterLayout)):
                sealed_frame("item_scores/d.parquet", damaged)


def test_a_copy_under_another_name_is_found_out() -> None:
    with pytest.raises(TornFile):
        sealed_frame("item_scores/e.parquet", sealed_bytes("item_scores/d.parquet", ROWS))


def test_a_full_disk_is_one_sentence_and_leaves_no_part(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = lake.deliver("item_scores", "d", ROWS)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MnemeError, match=r"^the disk under .* is full: free some space and run again"):
        lake.deliver("item_scores", "d", ROWS.with_columns(value=pl.lit(0.75)))
    assert lake.intact(kept)
    assert [path.name for path in (lake.folder / "item_scores").iterdir()] == ["d.parquet"]
