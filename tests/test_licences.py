"""The list of licences says what is installed, and the audit finds what is wrong."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests import licence_table
from tests.licence_table import COPYLEFT, PAGE, licence, page, pins, problems, table


def package(folder: Path, metadata: str, licence_file: str = "") -> Distribution:
    """A package that is installed in a folder, with that metadata."""
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: odd\nVersion: 1.0\n{metadata}\n")
    (info / "LICENSE").write_text(licence_file)
    (info / "RECORD").write_text("odd-1.0.dist-info/LICENSE,,\nodd-1.0.dist-info/METADATA,,\n")
    return Distribution.at(info)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="other packages are needed there"
)
def test_the_page_is_what_is_installed() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tests.licence_table --write"


def test_the_page_names_every_pin_with_its_version_and_nothing_else() -> None:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {name: version for name, version, *_ in lines if name != "package"}
    assert listed == {name: version.split("+")[0] for name, version in pins().items()}
    assert listed["ray"] == "2.60.0"


def test_every_package_is_as_pinned_and_states_a_licence() -> None:
    assert problems() == []
    assert len(table()) > 100


@pytest.mark.parametrize(
    ("metadata", "text", "found"),
    [
        ("License-Expression: MIT OR Apache-2.0", "", "MIT OR Apache-2.0"),
        ("License: BSD", "", "BSD"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: ISC License", "", "ISC License"),
        ("Classifier: License :: OSI Approved", "Permission is hereby granted, free\nof charge", "MIT (its file)"),
        ("", "All rights reserved", "not stated"),
    ],
)
def test_a_licence_is_read_from_the_surest_place(tmp_path: Path, metadata: str, text: str, found: str) -> None:
    assert licence(package(tmp_path, metadata, text)) == found


@pytest.mark.parametrize(
    ("text", "is_copyleft"),
    [
        ("GPL-3.0-only", True),
        ("GNU Affero General Public License", True),
        ("AGPL", True),
        ("LGPL-2.1", False),
        ("MIT", False),
    ],
)
def test_the_gpl_is_told_from_the_lesser_one(text: str, is_copyleft: bool) -> None:
    assert (COPYLEFT.search(text) is not None) == is_copyleft


def test_another_version_than_the_pinned_one_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {name: version for name, version in pins().items() if name != "numpy"}
    monkeypatch.setattr(licence_table, "pins", lambda: {**without, "duckdb": "0.0.1"})
    found = problems()
    assert any(each.startswith("duckdb ") and "constraints.txt says 0.0.1" in each for each in found)
    assert any(each.startswith("numpy ") and each.endswith("is not in constraints.txt: pin it") for each in found)
    assert len(found) == 2
