"""What tells publishing that a lake file need not be read again, and what is found all the same."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from storage import files
from storage.files import stamp_of
from storage.home import Home
from storage.warehouse import publish, rebuild
from tests.storage.published import ask, one_trial

NAME = "head_scores/d1.parquet"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with one trial, whose files are stamped at once."""
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 0.0)
    one_trial(Home(tmp_path))
    return Home(tmp_path)


def alter(path: Path) -> None:
    """Turn one byte in the middle around, in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 255]))


def lose_bits(home: Home) -> None:
    """Alter a file as a failing disk does: the file system says that nobody touched it."""
    alter(home.lake / NAME)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("update raw.files set stamp = ? where lake_file = ?", [stamp_of(home.lake / NAME), NAME])


def stamps(home: Home) -> dict[str, str | None]:
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        return dict(connection.execute("select lake_file, stamp from raw.files").fetchall())


def test_a_fresh_file_has_no_stamp_and_a_settled_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert stamp_of(path) is None
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 0.0)
    found = path.stat()
    assert stamp_of(path) == f"{found.st_ino} 3 {found.st_mtime_ns} {found.st_ctime_ns}"


def test_the_same_bytes_in_the_same_place_with_the_same_time_have_another_stamp(home: Home) -> None:
    path = home.lake / NAME
    before, found = stamp_of(path), path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    copy.replace(path)
    assert path.stat().st_mtime_ns == found.st_mtime_ns
    assert stamp_of(path) != before


def test_publishing_notes_the_stamp_of_every_file_that_it_reads(home: Home) -> None:
    publish(home)
    assert stamps(home) == {name: stamp_of(home.lake / name) for name in stamps(home)}
    assert NAME in stamps(home)


def test_a_file_merged_while_it_was_fresh_is_read_once_more_and_then_known(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 3600.0)
    publish(home)
    assert set(stamps(home).values()) == {None}
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 0.0)
    assert publish(home).n_files_merged == 0
    assert None not in stamps(home).values()


def test_a_byte_altered_under_the_old_size_and_time_is_found_by_the_next_publish(home: Home) -> None:
    publish(home)
    found = (home.lake / NAME).stat()
    alter(home.lake / NAME)
    os.utime(home.lake / NAME, ns=(found.st_atime_ns, found.st_mtime_ns))
    (warning,) = publish(home).warnings
    assert warning.startswith(f"lake file {NAME} is damaged")
    assert ask(home, "select count(*) from raw.head_scores") == [(0,)]


def test_bits_that_a_disk_lost_unseen_are_found_by_a_recheck_and_not_before(home: Home) -> None:
    publish(home)
    lose_bits(home)
    assert publish(home).warnings == ()
    (warning,) = publish(home, recheck=True).warnings
    assert warning.startswith(f"lake file {NAME} is damaged")


def test_bits_that_a_disk_lost_unseen_are_found_by_a_rebuild(home: Home) -> None:
    publish(home)
    lose_bits(home)
    (warning,) = rebuild(home).warnings
    assert warning.startswith(f"lake file {NAME} is damaged")


def test_a_warehouse_from_before_stamps_is_kept_and_given_them(home: Home) -> None:
    publish(home)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("alter table raw.files drop column stamp")
    assert publish(home).n_files_merged == 0
    assert None not in stamps(home).values()
