"""Writes the list of licences: `python -m tests.licence_table --write`; `--audit` checks the installation.

Both read what is installed (importlib.metadata) and need no network. Known vulnerabilities are a matter of a database
that changes daily: no offline tool can answer for them.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OURS = "mneme"
PAGE = ROOT / "docs" / "licences.md"
EXTRAS = ("server", "dev")
RAY = "ray"
UNKNOWN = "not stated"
LONGEST = 60
TEXTS = {
    "Permission is hereby granted, free of charge": "MIT",
    "Redistribution and use in source and binary forms": "BSD",
    "Apache License Version 2.0": "Apache-2.0",
}
INSTALLERS = ("pip", "setuptools")  # they come with the virtual environment
COPYLEFT = re.compile(r"(?<!L)GPL|AFFERO|(?<!LESSER )GENERAL PUBLIC LICENSE", re.IGNORECASE)
HEADER = """# Licences

Written by `python -m tests.licence_table --write` from the metadata of the packages that `constraints.txt` installs, on
Linux; a test holds this page to it. `make audit` checks an installation offline: every package is the pinned version,
fits what the others require, states a licence, and none is under the GPL or AGPL. Mneme itself is under MIT.

- **needed by**: `use` is what `pip install mneme` brings, `server` and `dev` are the extras.

| package | version | licence | needed by |
|---|---|---|---|
"""
RAY_HEADER = """
## Workers on Ray

What `pip install 'mneme[ray]'` brings besides; this part is written where Ray is installed.

| package | version | licence | needed by |
|---|---|---|---|
"""


def pins() -> dict[str, str]:
    """The versions of constraints.txt by canonical name."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def closure(extra: str | None) -> dict[str, Distribution]:
    """Every installed package that Mneme needs, with one of its extras."""
    found: dict[str, Distribution] = {}
    waiting = [(OURS, {extra} if extra else set())]
    asked: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, frozenset(extras)) in asked:
            continue
        asked.add((name, frozenset(extras)))
        package = installed(name)
        if package is None:
            continue
        found[name] = package
        for text in package.requires or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": each}) for each in extras or {""}):
                waiting.append((canonicalize_name(need.name), set(need.extras)))
    return {name: package for name, package in found.items() if name != OURS}


def installed(name: str) -> Distribution | None:
    """The installed package, None when there is none."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def licence(package: Distribution) -> str:
    """A package's licence in one line: its SPDX expression, its short text, its classifiers, or what its file reads."""
    metadata = package.metadata
    expression, text = metadata.get("License-Expression") or "", metadata.get("License") or ""
    classifiers = [
        each.split(" :: ")[-1] for each in metadata.get_all("Classifier") or [] if each.startswith("License")
    ]
    classified = ", ".join(sorted(each for each in classifiers if each != "OSI Approved"))
    short = text if len(text) < LONGEST and text.upper() != "UNKNOWN" else ""
    found = expression or short or classified or in_its_file(package)
    return " ".join(found.split())[:LONGEST].replace("|", "/")


def in_its_file(package: Distribution) -> str:
    """The licence that a package's own file is the text of."""
    for path in package.files or []:
        if "licen" in path.name.lower() and path.locate().is_file():
            content = " ".join(path.read_text().split())
            for words, name in TEXTS.items():
                if words in content:
                    return f"{name} (its file)"
    return UNKNOWN


def table(extras: tuple[str, ...] = EXTRAS) -> list[tuple[str, str, str, str]]:
    """Package, version, licence and what needs it, by name; the pinned packages only."""
    needed: dict[str, str] = {}
    for extra in (None, *extras):
        for name in closure(extra):
            needed.setdefault(name, extra or "use")
    pinned = pins()
    rows = []
    for name, needed_by in sorted(needed.items()):
        package = installed(name)
        if package is not None and name in pinned:
            rows.append((name, package.version.split("+")[0], licence(package), needed_by))
    return rows


def page() -> str:
    """The whole page; where Ray is not installed, its part stays as it is written."""
    return HEADER + _lines(table()) + RAY_HEADER + ray_part()


def ray_part() -> str:
    """The packages that Ray alone needs, a line each."""
    if installed(RAY) is None:
        return PAGE.read_text().partition(RAY_HEADER)[2]
    return _lines([row for row in table((*EXTRAS, RAY)) if row[-1] == RAY])


def _lines(rows: list[tuple[str, str, str, str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def problems() -> list[str]:
    """What is wrong with this installation, a sentence each."""
    pinned, found = pins(), []
    for extra in (None, *EXTRAS, RAY):
        for name, package in closure(extra).items():
            version = package.version.split("+")[0]
            if name in INSTALLERS:
                continue
            if name not in pinned:
                found.append(f"{name} {version} is not in constraints.txt: pin it")
            elif pinned[name].split("+")[0] != version:
                found.append(f"{name} {version} is installed where constraints.txt says {pinned[name]}: install again")
            if licence(package) == UNKNOWN:
                found.append(f"{name} {version} states no licence: read its files, then decide")
            if COPYLEFT.search(licence(package)):
                found.append(f"{name} {version} is under {licence(package)}: replace it, or decide that it may stay")
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    if "--write" not in sys.argv:
        wrong = problems()
        print("\n".join(wrong) or f"{len(table((*EXTRAS, RAY)))} packages are as pinned, and each states a licence")
        sys.exit(bool(wrong))
    PAGE.write_text(page())
