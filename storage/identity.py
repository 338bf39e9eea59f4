"""Names for what was asked and what answered it: canonical hashes and the code that a stage imports."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mneme
from storage.files import sha256_file
from storage.syntax import syntax_of

PACKAGE = "mneme"
_ROOT = Path(next(iter(mneme.__path__)))


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN; raises ValueError/TypeError for anything else."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any, length: int = 32) -> str:
    """The first `length` hex digits of the sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def versions() -> dict[str, str]:
    """Versions of the libraries that compute numbers, read without importing them."""
    return {name: version(name) for name in ("numpy", "torch", "transformers")}


def code_parts(roots: Iterable[str]) -> dict[str, str]:
    """Hash of each submodule of `mneme` that the root modules import, themselves included, by dotted name.

    Follows import statements (also those inside functions) through submodules only: a package `__init__` and a
    registry's dynamic import are not followed, so a result depends on the code that computes it and on nothing else.
    Comments, docstrings and formatting do not count: the syntax tree is hashed.
    """
    parts: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in parts:
            continue
        path = _module_path(module)
        if path is None:
            raise ModuleNotFoundError(f"no module {module} under {_ROOT}")
        parts[module], imported = _read_module(path, path.stat().st_mtime_ns)
        waiting.extend(imported)
    return dict(sorted(parts.items()))


def data_parts(folder: str) -> dict[str, str]:
    """Hash of each data file (anything that is no Python) under a folder of `mneme`, by relative path."""
    root = _ROOT / folder
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})
    return {str(path.relative_to(root)): sha256_file(path)[:16] for path in paths}


@lru_cache(maxsize=1024)
def _read_module(path: Path, _mtime_ns: int) -> tuple[str, tuple[str, ...]]:
    tree = syntax_of(path)
    imported = tuple(sorted(_imported_submodules(tree)))
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()[:16], imported


def _imported_submodules(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        found.update(name for name in names if name.startswith(f"{PACKAGE}.") and _module_path(name))
    return found


def _module_path(module: str) -> Path | None:
    """File of a submodule, None for packages and for names that are no modules."""
    path = _ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path if module != PACKAGE and path.is_file() else None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the identity parts that differ, in order."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
