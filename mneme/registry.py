"""Finds the members of a plural folder by name, importing only the one that is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from typing import Generic, TypeVar

from mneme.errors import BadInput

Member = TypeVar("Member")


def near_names(name: str, names: list[str]) -> str:
    """`; did you mean 'a' or 'b'?` for the closest of `names`, else the list of all of them."""
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(f"'{each}'" for each in close) + "?"
    return "; known: " + ", ".join(names) if names else "; there is none"


class Registry(Generic[Member]):
    """Members of one kind; a member's module, function and name are the same word."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._members: dict[str, Member] = {}

    def register(self, name: str, member: Member, module: str) -> None:
        """Add a member; refuses a second one of the name from another module (a reload is not a second one)."""
        known = self._members.get(name)
        if known is not None and getattr(known, "module", module) != module:
            raise BadInput(f"{self.kind} '{name}' is registered twice: rename one of the two functions")
        self._members[name] = member

    def names(self) -> list[str]:
        """Names of all members, read from the folder without importing anything but the package."""
        package = importlib.import_module(self.package)
        found = [each.name for each in pkgutil.iter_modules(package.__path__) if not each.name.startswith("_")]
        extra = [name for name in self._members if name not in found]
        return sorted(found + extra)

    def module(self, name: str) -> str:
        """Dotted name of the module that holds the member: the root of its code identity."""
        if name in self._members:
            return str(getattr(self._members[name], "module", f"{self.package}.{name}"))
        self._refuse_unknown(name)
        return f"{self.package}.{name}"

    def get(self, name: str) -> Member:
        """The member of that name; raises BadInput, with near names, when there is none."""
        if name not in self._members:
            self._refuse_unknown(name)
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._members:
            raise BadInput(f"{self.package}.{name} registers no {self.kind} '{name}': name the function like the file")
        return self._members[name]

    def _refuse_unknown(self, name: str) -> None:
        names = self.names()
        if name not in names:
            raise BadInput(f"unknown {self.kind} '{name}'" + near_names(name, names))


def member_of(function: Callable[..., object]) -> tuple[str, str]:
    """Name and module of a function that registers itself."""
    return str(getattr(function, "__name__", "")), function.__module__
