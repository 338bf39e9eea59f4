"""Names of any characters and length at every command: one short line says that there is no such thing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli.app import main
from storage.home import Home
from storage.warehouse import publish

NAMES = {
    "a quote": "o'clock",
    "SQL behind a quote": "x'; drop table raw.trials; --",
    "two lines": "a\nmneme: b",
    "steers the terminal": "\x1b[2J\x1b]0;gone\x07",
    "another script": "мнемоника-記憶",
    "from right to left": "\u202egpj.exe",
    "markup": "<script>alert(1)</script>",
    "climbs": "../../../../etc/passwd",
    "10,000 characters": "n" * 10_000,
    "no text": "\udcff\udcfe",
}
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "run": lambda name: ["run", name],
    "run a plan": lambda name: ["run", name, "--plan"],
    "run with a setting": lambda name: ["run", "quickstart", "--set", f"{name}=1"],
    "run anew": lambda name: ["run", "quickstart", "--refresh", name],
    "report": lambda name: ["report", name],
    "show": lambda name: ["show", name],
    "forget": lambda name: ["forget", name],
    "views": lambda name: ["views", name],
    "list": lambda name: ["list", name],
    "gc": lambda name: ["gc", "--free", name],
    "sql": lambda name: ["sql", f'from "{name}"'],
    "sql in a format": lambda name: ["sql", "select 1", "--format", name],
    "restore": lambda name: ["restore", f"nowhere/{name}"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with published results and no trial."""
    made = Home(tmp_path_factory.mktemp("names") / "home")
    made.root.mkdir()
    publish(made)
    return made


@pytest.mark.usefixtures("own_environment")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_of_nothing_is_refused_in_one_line_and_changes_nothing(
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("MNEME_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    for kind, name in NAMES.items():
        monkeypatch.setattr(sys, "argv", ["mneme", *COMMANDS[command](name)])
        with pytest.raises(SystemExit) as leaving:
            main()
        out, err = capfd.readouterr()
        assert (leaving.value.code, out) == (1, ""), (kind, err)
        lines = err.rstrip("\n").split("\n")
        assert lines[0].startswith("mneme: "), (kind, err)
        assert len(lines) <= (4 if command == "sql" else 1), (kind, err)  # DuckDB shows the place in a line of its own
        assert all(line.isprintable() for line in lines), (kind, err)
        assert len(err) < 1500, (kind, err)
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == []
