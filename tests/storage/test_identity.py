"""Identity follows the code that computes, and nothing else."""

from pathlib import Path

import pytest

from storage import identity
from storage.identity import canonical_json, changed_parts, code_parts, digest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "mneme"
    (root / "probes").mkdir(parents=True)
    (root / "__init__.py").write_text("from mneme.unrelated import x\n")
    (root / "unrelated.py").write_text("x = 1\n")
    (root / "helper.py").write_text('"""Helper."""\ndef double(x):\n    """Twice."""\n    return 2 * x\n')
    (root / "probes" / "__init__.py").write_text("")
    (root / "probes" / "echo.py").write_text("from mneme.helper import double\n\ndef echo(x):\n    return double(x)\n")
    monkeypatch.setattr(identity, "_ROOT", root)
    return root


def rewrite(path: Path, text: str) -> None:
    """Rewrite with a new time of change, as an editor would."""
    import os

    path.write_text(text)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))


def test_a_stage_depends_on_the_submodules_it_imports_and_not_on_the_package_init(package: Path) -> None:
    assert set(code_parts(["mneme.probes.echo"])) == {"mneme.probes.echo", "mneme.helper"}


def test_comments_docstrings_and_formatting_change_nothing(package: Path) -> None:
    before = code_parts(["mneme.probes.echo"])
    rewrite(package / "helper.py", '"""Other words."""\n\n\n# why\ndef double(x):\n    return (2 * x)  # twice\n')
    assert code_parts(["mneme.probes.echo"]) == before


def test_a_changed_formula_in_an_imported_helper_changes_exactly_its_part(package: Path) -> None:
    before = code_parts(["mneme.probes.echo"])
    rewrite(package / "helper.py", "def double(x):\n    return 3 * x\n")
    assert changed_parts(before, code_parts(["mneme.probes.echo"])) == ["mneme.helper"]


def test_an_import_inside_a_function_counts(package: Path) -> None:
    rewrite(package / "probes" / "echo.py", "def echo(x):\n    from mneme import unrelated\n    return unrelated.x\n")
    assert "mneme.unrelated" in code_parts(["mneme.probes.echo"])


def test_an_unknown_root_is_an_error(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"mneme\.nothing"):
        code_parts(["mneme.nothing"])


def test_equal_values_have_one_digest_whatever_their_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
