"""Entries: sealed JSON in Prefect's result files."""

import json
from pathlib import Path

import pytest

from storage.entries import Entries, sealed


def write(folder: Path, key: str, value: dict[str, object]) -> Path:
    record = {"metadata": {}, "result": json.dumps(sealed(value))}
    path = folder / key
    path.write_text(json.dumps(record))
    return path


def test_a_sealed_value_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, "k", {"x": 1, "stage": "trace"})
    assert Entries(tmp_path).read("k") == {"x": 1, "stage": "trace"}
    assert [entry.key for entry in Entries(tmp_path).all()] == ["k"]


@pytest.mark.parametrize(("old", "new"), [(b'\\"x\\":', b'\\"y\\":'), (b"12345", b"12346"), (b'"result"', b'"resu"')])
def test_an_altered_value_reads_as_absent(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = write(tmp_path, "k", {"x": 12345})
    content = path.read_bytes().replace(b'\\"x\\": ', b'\\"x\\":')
    assert old in content
    path.write_bytes(content.replace(old, new))
    assert Entries(tmp_path).read("k") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04K*.", b"[]", b'{"result": 3}'])
def test_anything_else_reads_as_absent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    assert Entries(tmp_path).read("k") is None
    assert Entries(tmp_path).all() == []


def test_an_absent_key_reads_as_absent(tmp_path: Path) -> None:
    assert Entries(tmp_path / "nowhere").read("k") is None
