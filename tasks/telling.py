"""What worker processes narrate: each writes a file, a line at a time, which is read while they work.

Files of the home reach every worker that shares it, on this machine or another.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.home import Home
from tasks.narrator import Listener, listener

_SECONDS = 0.2


class Teller:
    """A listener that writes what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, label: str) -> None:
        """A stage starts."""
        self._tell("begin", label)

    def advance(self, label: str, done: int, total: int, note: str) -> None:
        """`done` of `total` of the stage is done."""
        self._tell("advance", label, done, total, note)

    def end(self, label: str, outcome: str, why: str = "") -> None:
        """The stage ended."""
        self._tell("end", label, outcome, why)

    def _tell(self, *said: Any) -> None:
        with suppress(FileNotFoundError), self.path.open("ab") as file:  # the folder goes when nobody listens any more
            file.write(json.dumps(said).encode() + b"\n")


@contextmanager
def retold(home: Home) -> Iterator[Path]:
    """A folder for tellers: what they write there is told to the listener of this process, for the block's length."""
    folder = home.runs / f"told-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(folder, listener(), over), daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def _follow(folder: Path, to: Listener, over: threading.Event) -> None:
    read: dict[Path, int] = {}
    is_over = False
    while not is_over:
        is_over = over.wait(_SECONDS)
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]  # a line that is half written is read the next time
            read[path] = read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                _retell(json.loads(line), to)


def _retell(said: list[Any], to: Listener) -> None:
    kind, *rest = said
    if kind == "begin":
        to.begin(*rest)
    elif kind == "advance":
        to.advance(*rest)
    else:
        to.end(*rest)
