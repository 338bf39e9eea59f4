"""Words bound to each other in one scene, so that training never sees what is held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mneme.errors import BadInput
from mneme.words import Words

_MOST_DRAWS = 500
_ROUNDS = 20


def bound(rng: np.random.Generator, words: Words, draw: Callable[[], list[list[str]]], asked: int) -> list[list[str]]:
    """Columns of words whose rows are bindings, exchanged within the last column until the split allows them.

    draw: gives fresh columns of equal length, for example keys and values. In training every row must be allowed, since
    every row is seen; in a held-out split the row `asked` must be a held-out one, the others may be any.
    Raises: BadInput where the words that the tokenizer leaves allow no such rows.
    """
    for _ in range(_MOST_DRAWS):
        columns = draw()
        last = columns[-1]
        must = range(len(last)) if words.split == "train" else (asked,)
        for _ in range(_ROUNDS):
            bad = [row for row in must if not words.allows([column[row] for column in columns])]
            if not bad:
                return columns
            for row in bad:
                other = int(rng.integers(len(last)))
                last[row], last[other] = last[other], last[row]
    raise BadInput(
        f"the words that the tokenizer has as single tokens bind in no way that the {words.split} split allows: "
        "use a promptset that fits this model"
    )
