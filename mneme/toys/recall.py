"""Multi-query associative recall in ids (METHODS 15): pairs of a key and a value, then every key again.

Row: a first token, `n` pairs, then each key and a blank behind it; at the key its value is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.errors import BadInput

BLANK = 0


@dataclass(frozen=True)
class RecallTask:
    """Sizes of the task. Ids: the blank 0, then the keys, the values, and the first token, which is the last id.

    Raises: BadInput for fewer than 2 keys or values.
    """

    n_keys: int
    n_values: int

    def __post_init__(self) -> None:
        whole_number("n_keys", self.n_keys, 2)
        whole_number("n_values", self.n_values, 2)

    @property
    def first_value(self) -> int:
        """Id of value 0; the keys stand before it, from 1 on."""
        return 1 + self.n_keys

    @property
    def first_id(self) -> int:
        """Id of the first token."""
        return 1 + self.n_keys + self.n_values

    def draw(self, n_rows: int, n_pairs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids [item position] and the right value of each query [item query], 0 .. n_values - 1.

        Keys differ within a row, values recur. Position 2 * n_pairs + 1 holds the first query, two on the next one.
        """
        keys = torch.rand(n_rows, self.n_keys, generator=generator).argsort(dim=1)[:, :n_pairs] + 1
        values = torch.randint(self.n_values, (n_rows, n_pairs), generator=generator)
        order = torch.rand(n_rows, n_pairs, generator=generator).argsort(dim=1)
        pairs = torch.stack([keys, values + self.first_value], dim=-1).flatten(1)
        asked = keys.gather(1, order)
        queries = torch.stack([asked, torch.full_like(asked, BLANK)], dim=-1).flatten(1)[:, :-1]
        first = torch.full((n_rows, 1), self.first_id)
        return torch.cat([first, pairs, queries], dim=1), values.gather(1, order)


def context_of(n_pairs: int) -> int:
    """Tokens of a row with so many pairs."""
    return 4 * n_pairs


def queries_of(n_pairs: int) -> slice:
    """The positions of a row at which values are asked."""
    return slice(2 * n_pairs + 1, None, 2)


def checked_sizes(place: str, n_pairs: object, most: int) -> list[int]:
    """A list of different numbers of pairs, in order; raises BadInput for anything else, or more than `most`."""
    if not isinstance(n_pairs, list | tuple) or not n_pairs:
        raise BadInput(f"{place} is {n_pairs!r}: give a list of numbers of pairs, such as [4, 8, 16]")
    sizes = sorted({whole_number(place, each, 2, most) for each in n_pairs})
    if len(sizes) < len(n_pairs):
        raise BadInput(f"{place} is {n_pairs!r}: name each number once")
    return sizes
