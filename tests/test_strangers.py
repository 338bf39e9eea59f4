"""Strangers: whatever is written in YAML, prompts, SQL or a model folder ends in an answer or in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mneme.errors import BadInput
from mneme.weights import INDEX, SINGLE, read_folder
from storage.config_files import read_spec
from storage.home import Home
from storage.promptset_files import read_rows
from storage.reader import query
from storage.studies import load_study
from storage.warehouse import publish
from tests import strangers
from tests.strangers import CONFIG, STUDY, Cases, tensors

TABLES: dict[str, Cases] = {
    "study": strangers.STUDIES,
    "--set": strangers.SETTINGS,
    "model": strangers.MODELS,
    "promptset": strangers.PROMPTSETS,
    "prompts": {name: (content, words) for name, (_, content, words) in strangers.PROMPTS.items()},
    "sql": strangers.SQL,
    "config.json": strangers.CONFIGS,
    "safetensors": strangers.WEIGHTS,
    "index": strangers.INDEXES,
}
PROMPTSET = "generator: repeated_tokens\nparameters: {n_items: 4, period: 8}\n"
N_CASES = 153
N_SENTENCES = 144  # distinct by entry point


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class Entry:
    """The doors that take what strangers write, each with a home and configs of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.home.root.mkdir()
        publish(self.home)
        self.n = 0
        self.mend()

    def mend(self) -> None:
        """A good model and a good promptset."""
        write(self.root / "configs/models/m.yaml", "source: {kind: local, path: /nowhere}\n")
        write(
            self.root / "configs/promptsets/p.yaml", "generator: repeated_tokens\nparameters: {n_items: 4, period: 8}\n"
        )

    def ask(self, door: str, name: str, content: str | bytes) -> object:
        """What comes of the content at that door."""
        if door == "study":
            write(self.root / "configs/studies/s.yaml", content)
            return load_study("s")
        if door == "--set":
            write(self.root / "configs/studies/s.yaml", STUDY)
            return load_study("s", [str(content)])
        if door in {"model", "promptset"}:
            write(self.root / f"configs/{door}s/{door[0]}.yaml", content)
            try:
                return read_spec("models" if door == "model" else "promptsets", door[0])
            finally:
                self.mend()
        if door == "prompts":
            return read_rows(write(self.root / strangers.PROMPTS[name][0], content))
        if door == "sql":
            return query(self.home, str(content))
        return read_folder(self.model(door, content))

    def model(self, door: str, content: str | bytes) -> Path:
        """A model folder whose config.json, weights or index a stranger wrote."""
        self.n += 1
        folder = self.root / f"model-{self.n}"
        config = content if door == "config.json" else str(CONFIG).replace("'", '"')
        write(folder / "config.json", config)
        if door == "index":
            write(folder / INDEX, content)
        else:
            write(folder / SINGLE, content if door == "safetensors" else tensors({}, b""))
        return folder


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return Entry(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def said(entry: Entry) -> dict[tuple[str, str], str]:
    """The sentence of each case, asked once; a case that is no BadInput fails by its own error."""
    found: dict[tuple[str, str], str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNEME_CONFIGS", str(entry.root / "configs"))
        for door, cases in TABLES.items():
            for name, (content, _) in cases.items():
                try:
                    found[door, name] = f"answered: {str(entry.ask(door, name, content))[:200]}"
                except BadInput as refusal:
                    found[door, name] = str(refusal).replace(str(entry.root), "")
                except Exception as error:
                    found[door, name] = f"crashed: {type(error).__name__}: {str(error)[:200]}"
    return found


@pytest.mark.parametrize(("door", "name"), [(door, name) for door, cases in TABLES.items() for name in cases])
def test_what_a_stranger_writes_is_refused_in_one_short_sentence(
    said: dict[tuple[str, str], str], door: str, name: str
) -> None:
    sentence = said[door, name]
    assert not sentence.startswith(("answered", "crashed")), sentence
    assert TABLES[door][name][1] in sentence
    assert len(sentence) < 1000
    assert sentence.split("\nLINE")[0].count("\n") <= (1 if door == "sql" else 0)
    assert sentence.isprintable() or door == "sql"


def test_there_are_more_than_a_hundred_bad_inputs_distinct_by_entry_point_and_sentence(
    said: dict[tuple[str, str], str],
) -> None:
    assert len(said) == N_CASES
    distinct = {(door, re.sub(r"\d", "", sentence)) for (door, _), sentence in said.items()}
    assert len(distinct) == N_SENTENCES
    assert N_SENTENCES > 100
