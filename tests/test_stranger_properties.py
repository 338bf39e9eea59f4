"""Whatever the bytes: specs, prompts, stored files and SQL give a right answer, or the refusal they promise."""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mneme.errors import BadInput
from mneme.weights import SINGLE, read_folder
from storage.config_files import KINDS, Kind, parse
from storage.config_text import plain_yaml, refuse_odd_values
from storage.content import ContentStore, Damaged
from storage.entries import Entries, sealed
from storage.home import Home
from storage.identity import canonical_json
from storage.parquet import LaterLayout, TornFile, sealed_bytes, sealed_frame
from storage.promptset_files import read_rows
from storage.reader import query
from storage.warehouse import publish
from tests.strangers import CONFIG, tensors

often = settings(max_examples=60, deadline=None, derandomize=True, database=None)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = sorted({name for kind in KINDS.values() for name in kind.model_fields} | {"kind", "path", "id", "revision"})
likely = st.sampled_from(
    ["local", "hub", "recipe", "../x", "induction_lm", "ioi", "cpu", "{step}", "above", 0, 1.5, ""]
)
specs = st.recursive(
    likely | plain,
    lambda inner: st.dictionaries(st.sampled_from(fields), inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=10,
)
# what CSV and JSONL can hold: any text but a NUL and halves of characters
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
WORDS = (
    *("select", "from", "where", "mart.trials", "raw.trials", "*", "(", ")", "'", '"', ";", "--", "/*", "*/", ",", "1"),
    *("'a'", "NULL", "read_text", "glob", "attach", "copy", "to", "install", "set", "pragma", "explain", "analyze"),
    *(
        "describe",
        "with",
        "as",
        "values",
        "union",
        "all",
        "order",
        "by",
        "$1",
        "?",
        "[",
        "]",
        "{",
        "}",
        "::",
        "int",
        "%",
    ),
)
Value = TypeVar("Value")
questions = st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def asked(act: Callable[[], Value]) -> tuple[Value | None, str]:
    """The answer and no sentence, or no answer and the sentence of its refusal; anything else is a failure."""
    try:
        return act(), ""
    except BadInput as refusal:
        return None, str(refusal)


@often
@given(st.text(max_size=200) | specs.map(yaml.safe_dump))
def test_a_yaml_text_is_a_value_that_json_can_hold_or_refused(text: str) -> None:
    value, sentence = asked(lambda: plain_yaml(text, "here"))
    assert sentence.startswith("here") or canonical_json(value)


@often
@given(
    st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(fields) | st.text(max_size=8), specs, max_size=8)
)
def test_a_mapping_is_a_spec_with_an_identity_or_refused_in_one_line(kind: Kind, content: dict[str, Any]) -> None:
    def read() -> str:
        refuse_odd_values(content, "here")
        return canonical_json(parse(KINDS[kind], content, "here").model_dump(mode="json"))

    identity, sentence = asked(read)
    assert identity or sentence.startswith("here")
    assert "\n" not in sentence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@often
@given(st.lists(st.fixed_dictionaries({"prompt": texts, "cluster": texts}), min_size=1, max_size=4))
def test_prompts_come_back_as_they_were_written_whatever_their_characters(
    folder: Path, rows: list[dict[str, str]]
) -> None:
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "cluster"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
    assert read_rows(folder / "a.csv") == read_rows(folder / "a.jsonl") == rows


@often
@given(st.sampled_from(["csv", "jsonl"]), st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_a_file_of_any_bytes_is_rows_of_texts_by_name_or_refused(folder: Path, kind: str, content: bytes) -> None:
    path = folder / f"any.{kind}"
    path.write_bytes(content)
    rows, sentence = asked(lambda: read_rows(path))
    assert rows or "any." in sentence
    assert all(isinstance(name, str) for row in rows or () for name in row)


@often
@given(st.dictionaries(st.text(max_size=5), plain, max_size=3), st.data())
def test_an_entry_of_any_bytes_is_absent_and_an_altered_one_is_absent_or_the_same(
    folder: Path, value: dict[str, Any], data: st.DataObject
) -> None:
    try:
        record = json.dumps({"result": sealed(value)}).encode()
    except ValueError:  # NaN and infinity are never sealed
        return
    place, byte = data.draw(st.integers(0, len(record) - 1)), data.draw(st.integers(0, 255))
    (folder / "k").write_bytes(record)
    whole = Entries(folder).read("k")
    assert canonical_json(whole) == canonical_json(value)
    (folder / "k").write_bytes(record[:place] + bytes([byte]) + record[place + 1 :])
    found = Entries(folder).read("k")
    assert found is None or canonical_json(found) == canonical_json(value)
    (folder / "k").write_bytes(data.draw(st.binary(max_size=60)))
    assert Entries(folder).read("k") is None


@often
@given(st.binary(max_size=300), st.data())
def test_a_lake_file_of_any_bytes_is_torn_and_an_altered_one_is_never_read(content: bytes, data: st.DataObject) -> None:
    with pytest.raises((TornFile, LaterLayout)):
        sealed_frame("trials/a.parquet", content)
    whole = sealed_bytes("trials/a.parquet", pl.DataFrame({"a": [1.5, None]}))
    place, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    if byte != whole[place]:
        with pytest.raises((TornFile, LaterLayout)):
            sealed_frame("trials/a.parquet", whole[:place] + bytes([byte]) + whole[place + 1 :])


@settings(often, max_examples=30)
@given(st.binary(min_size=1, max_size=100), st.binary(max_size=100))
def test_a_stored_object_that_is_altered_is_damaged(folder: Path, content: bytes, other: bytes) -> None:
    store = ContentStore(folder / "store")
    reference = store.put_file("a", lambda path: path.write_bytes(content))
    assert store.file(reference).read_bytes() == content
    (store.path(reference) / "a").write_bytes(other)
    if other != content:
        with pytest.raises(Damaged):
            store.file(reference)
    store.remove(reference.address)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    publish(made)
    return made


@settings(often, max_examples=100)
@given(questions)
def test_any_text_as_sql_is_answered_or_refused_and_changes_nothing(home: Home, sql: str) -> None:
    before = home.results.stat()
    answer, sentence = asked(lambda: query(home, sql))
    assert answer or 0 < len(sentence) < 1000
    after = home.results.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert sorted(path.name for path in home.root.iterdir() if path.suffix == ".duckdb") == ["results.duckdb"]


@often
@given(plain | st.dictionaries(st.text(string.ascii_letters, max_size=3), specs, max_size=2), st.binary(max_size=20))
def test_weights_with_any_header_are_facts_or_refused(folder: Path, header: Any, data: bytes) -> None:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / SINGLE).write_bytes(tensors(header, data))
    facts, sentence = asked(lambda: read_folder(model))
    assert facts or SINGLE in sentence


@often
@given(
    plain, st.sampled_from(["architectures", "quantization_config", "text_config", "n_head", "auto_map", "model_type"])
)
def test_a_config_of_any_values_is_facts_or_refused(folder: Path, value: Any, key: str) -> None:
    model = folder / "config"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG | {key: value}))
    (model / SINGLE).write_bytes(tensors({}, b""))
    facts, sentence = asked(lambda: read_folder(model))
    assert facts or "config" in sentence
