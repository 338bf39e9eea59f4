"""Syntax trees of our own modules, built by one thread at a time."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

_TRIES = 5
_one_at_a_time = threading.Lock()


def syntax_of(path: Path) -> ast.Module:
    """The syntax tree of a Python file.

    Python 3.11 counts the depth of all trees that are being built in one place: two threads that build at once can end
    in a SystemError. The lock keeps our threads apart; where a library builds a tree meanwhile, we try again.
    """
    text = path.read_text(encoding="utf-8")
    for _ in range(_TRIES - 1):
        try:
            with _one_at_a_time:
                return ast.parse(text)
        except SystemError:
            continue
    with _one_at_a_time:
        return ast.parse(text)
