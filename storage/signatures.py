"""Which parameters a probe, generator or recipe takes, read from its source without importing it (or torch)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import mneme
from mneme.errors import BadInput
from mneme.registry import near_names
from storage.syntax import syntax_of

Kind = Literal["probe", "promptset", "recipe"]
_FOLDERS: dict[Kind, str] = {"probe": "probes", "promptset": "promptsets", "recipe": "recipes"}
_GIVEN = frozenset({"seed", "probe_seed", "progress", "rows", "workshop"})


def member_module(kind: Kind, name: str) -> str:
    """Dotted module of a member; raises BadInput, with near names, when there is none."""
    folder = Path(next(iter(mneme.__path__))) / _FOLDERS[kind]
    if not (folder / f"{name}.py").is_file() or name.startswith("_"):
        known = sorted(path.stem for path in folder.glob("[!_]*.py"))
        raise BadInput(f"unknown {kind} '{name[:80]}'{near_names(name[:80], known)}")
    return f"mneme.{_FOLDERS[kind]}.{name}"


def parameter_defaults(kind: Kind, name: str) -> dict[str, bool]:
    """Keyword parameters of the member's function that a YAML may set, and whether each has a default."""
    arguments = _function(kind, name).args
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {each.arg: default is not None for each, default in pairs if each.arg not in _GIVEN}


def literal_defaults(kind: Kind, name: str) -> dict[str, Any]:
    """The defaults of those parameters whose default is written out as a literal."""
    arguments = _function(kind, name).args
    found: dict[str, Any] = {}
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        with suppress(ValueError):
            if default is not None:
                found[each.arg] = ast.literal_eval(default)
    return found


def declared_facts(kind: Kind, name: str) -> dict[str, Any]:
    """The literal keywords of the member's registering decorator (level, site, unit, ...)."""
    for decorator in _function(kind, name).decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name):
            return {each.arg: ast.literal_eval(each.value) for each in decorator.keywords if each.arg}
    raise BadInput(f"{member_module(kind, name)} does not register '{name}': decorate it with @{kind}(...)")


def check_parameters(kind: Kind, name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse a parameter that the function does not take, or the lack of one that it needs."""
    known = parameter_defaults(kind, name)
    for key in parameters:
        if key not in known:
            raise BadInput(f"{kind} {name} takes no parameter '{key[:80]}'{near_names(key[:80], list(known))}")
    missing = [key for key, has_default in known.items() if not has_default and key not in parameters]
    if missing:
        raise BadInput(f"{kind} {name} needs the parameter '{missing[0]}': set it in its YAML")


def _function(kind: Kind, name: str) -> ast.FunctionDef:
    module = member_module(kind, name)
    path = Path(next(iter(mneme.__path__))).joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in _parsed(path, path.stat().st_mtime_ns).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise BadInput(f"{module} defines no function '{name}': name the function like the file")


@lru_cache(maxsize=512)
def _parsed(path: Path, modified: int) -> ast.Module:  # noqa: ARG001  a changed file is read anew
    """The syntax tree of a member's file, which a study asks for many times."""
    return syntax_of(path)
