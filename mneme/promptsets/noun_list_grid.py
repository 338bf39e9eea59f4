"""Lists of nouns read again, over a grid of list sizes and of lengths of the text between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.encoding import padded
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.verbatim_list import verbatim_list

_FEWEST_NOUNS = 3


@promptset(needs_tokenizer=True, source="Armeni, Honey, Linzen 2022; METHODS 9")
def noun_list_grid(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    condition: str = "repeat",
    n_nouns: Sequence[int] = (3, 5, 7, 10),
    n_between: Sequence[int] = (26, 47, 99, 194),
    n_lists: int = 3,
    split: str = "evaluation",
) -> Promptset:
    """The prompts of `verbatim_list` with `ends: full`, told for every size of a list and every length between.

    condition: list 2 is list 1 (`repeat`), its nouns in another order (`permute`), or other nouns (`novel`).
    n_nouns, n_between: the sizes, and the tokens of the text between (or less than a sentence fewer); every pair of
    them is a cell of the grid. n_lists: lists per cell, each in all its circular shifts, so that every noun visits
    every position and a cell has n_lists x n_nouns prompts; the shifts of one list are a cluster.
    Conditions: n_nouns, n_between, as asked for. Labels: list1_0 .. and list2_0 .. for the nouns of the longest list,
    those after the end of a shorter list standing at its last noun; end. Facts: condition, n_nouns, n_between,
    n_lists, ends (full), split.
    Departs from METHODS 9: as `verbatim_list`; 435 tokens between are left out by default.
    Raises: BadInput for a grid without cells or with one named twice, fewer than three nouns, a text between that the
    context has no room for, or where the tokenizer has too few single-token words.
    """
    sizes = _sizes("n_nouns", n_nouns, _FEWEST_NOUNS)
    lengths = _sizes("n_between", n_between, 0)
    n_lists = whole_number("noun_list_grid.n_lists", n_lists, 1)
    cells = [(size, length) for size in sizes for length in lengths]
    parts = [
        verbatim_list(
            vocabulary,
            seed=int(np.random.default_rng([seed, cell]).integers(2**31)),
            n_items=n_lists * size,
            split=split,
            condition=condition,
            n_nouns=size,
            n_between=length,
            ends="full",
        )
        for cell, (size, length) in enumerate(cells)
    ]
    grid = {"n_nouns": sizes, "n_between": lengths, "n_lists": n_lists}
    return _joined(parts, cells, {**parts[0].facts, **grid})


def _sizes(name: str, given: object, least: int) -> list[int]:
    if not isinstance(given, list | tuple) or not given:
        raise BadInput(f"noun_list_grid.{name} is {given!r}: give a list of whole numbers, such as [5, 10]")
    sizes = [whole_number(f"noun_list_grid.{name}", each, least) for each in given]
    if len(set(sizes)) < len(sizes):
        raise BadInput(f"noun_list_grid.{name} is {given!r}: name each number once")
    return sizes


def _joined(parts: Sequence[Promptset], cells: Sequence[tuple[int, int]], facts: dict[str, object]) -> Promptset:
    """The cells as one promptset, cell after cell, no list in the cluster of another cell's."""
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.dropped)
    rows = [
        row[:length] for part in parts for row, length in zip(part.clean.ids.tolist(), part.clean.lengths, strict=True)
    ]
    n_most = max(size for size, _ in cells)
    names = ["end", *(f"{name}_{number}" for name in ("list1", "list2") for number in range(n_most))]
    labels = {
        name: torch.cat([_label(part, name, size) for part, (size, _) in zip(parts, cells, strict=True)])
        for name in names
    }
    of_items = [cell for part, cell in zip(parts, cells, strict=True) for _ in range(len(part))]
    return Promptset(
        clean=padded(rows, labels),
        clusters=_clusters(parts),
        facts=facts,
        texts=tuple(text for part in parts for text in part.texts or ()),
        dropped=dict(dropped),
        conditions={
            "n_nouns": torch.tensor([size for size, _ in of_items], dtype=torch.float64),
            "n_between": torch.tensor([length for _, length in of_items], dtype=torch.float64),
        },
    )


def _label(part: Promptset, name: str, size: int) -> Tensor:
    """A label of a cell, that of the last noun where its lists of `size` nouns have no such one: [item]."""
    list_name, _, number = name.partition("_")
    return part.clean.labels[f"{list_name}_{min(int(number), size - 1)}" if number else name]


def _clusters(parts: Sequence[Promptset]) -> Tensor | None:
    """One cluster per list of each cell; None where there is one list in all."""
    groups: list[Tensor] = []
    for part in parts:
        before = int(groups[-1].max()) + 1 if groups else 0
        own = torch.zeros(len(part), dtype=torch.int64) if part.clusters is None else part.clusters
        groups.append(own + before)
    joined = torch.cat(groups)
    return joined if int(joined.max()) else None
