"""Many threads may ask for syntax trees at once."""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import storage.studies
from storage.syntax import syntax_of


def test_trees_that_many_threads_ask_for_are_those_that_one_gets() -> None:
    path = Path(storage.studies.__file__)
    alone = ast.dump(ast.parse(path.read_text()))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: ast.dump(syntax_of(path)), range(40)))
    assert set(found) == {alone}


def test_a_file_that_is_no_python_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("def (")
    with pytest.raises(SyntaxError):
        syntax_of(tmp_path / "odd.py")
