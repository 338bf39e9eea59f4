"""Words bound to each other in one scene, so that training never sees what is held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mneme.words import Words

_ROUNDS = 20


def bound(rng: np.random.Generator, words: Words, draw: Callable[[], list[list[str]]], asked: int) -> list[list[str]]:
    """Columns of words whose rows are bindings, exchanged within the last column until the split allows them.

    draw: gives fresh columns of equal length, for example keys and values. In training every row must be allowed, since
    every row is seen; in a held-out split the row `asked` must be a held-out one, the others may be any. Drawing again
    until all rows fit would take too long: of ten rows, one draw in ten would do.
    Raises: BadInput where the words that the tokenizer leaves allow no such rows.
    """

    def must(columns: list[list[str]]) -> list[list[str]]:
        rows = range(len(columns[-1])) if words.split == "train" else (asked,)
        return [[column[row] for column in columns] for row in rows]

    def exchanged() -> list[list[str]]:
        columns = draw()
        last = columns[-1]
        for _ in range(_ROUNDS):
            bad = [row for row in must(columns) if not words.allows(row)]
            for row in (last.index(each[-1]) for each in bad):
                other = int(rng.integers(len(last)))
                last[row], last[other] = last[other], last[row]
            if not bad:
                break
        return columns

    return words.first_allowed(exchanged, must)
