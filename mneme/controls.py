"""Random head sets to compare a tested set with: as many heads of each layer, none of the tested ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import numpy as np

from mneme.arguments import whole_number
from mneme.errors import BadInput

Head = tuple[int, int]
HeadSet = tuple[Head, ...]


@dataclass(frozen=True)
class ControlSets:
    """Control sets for one tested set; `n_distinct` counts the different ones that exist.

    Fewer exist than were asked for: `sets` holds each of them once. None exists: `sets` is empty and what is computed
    from it is missing, never 0.
    """

    sets: tuple[HeadSet, ...]
    n_distinct: int


def set_sizes(who: str, ks: object, most: int | None = None) -> set[int]:
    """The sizes of sets that a YAML asks for; raises BadInput for no list, and for a size below 1 or above `most`."""
    if not isinstance(ks, list | tuple) or not ks:
        raise BadInput(f"{who}.ks is {ks!r}: give a list of set sizes, such as [1, 2, 4]")
    return {whole_number(f"{who}.ks", k, 1, most) for k in ks}


def matched_head_sets(tested: Sequence[Head], n_layers: int, n_heads: int, *, n_draws: int, seed: int) -> ControlSets:
    """Distinct random sets with the tested set's number of heads in each layer and none of its heads.

    Sets are drawn without repetition, so every draw is evidence of its own. Same seed, same sets.
    Raises: BadInput for a head outside the model or named twice.
    Source: METHODS 4 (random-head null: per-layer counts kept, tested set excluded).
    """
    heads = sorted((int(layer), int(head)) for layer, head in tested)
    if len(set(heads)) != len(heads):
        raise BadInput(f"head set {heads} names a head twice")
    if any(not (0 <= layer < n_layers and 0 <= head < n_heads) for layer, head in heads):
        raise BadInput(f"head set {heads} names a head outside {n_layers} layers of {n_heads} heads")
    counts = Counter(layer for layer, _ in heads)
    free = {layer: [h for h in range(n_heads) if (layer, h) not in heads] for layer in counts}
    n_distinct = prod(comb(len(free[layer]), count) for layer, count in counts.items()) if heads else 0
    if n_distinct <= n_draws:
        return ControlSets(tuple(_all_sets(free, counts)) if n_distinct else (), n_distinct)
    return ControlSets(tuple(_drawn_sets(free, counts, n_draws, seed)), n_distinct)


def _all_sets(free: dict[int, list[int]], counts: Counter[int]) -> list[HeadSet]:
    per_layer = [
        [tuple((layer, head) for head in chosen) for chosen in combinations(free[layer], counts[layer])]
        for layer in sorted(counts)
    ]
    return [tuple(head for part in parts for head in part) for parts in product(*per_layer)]


def _drawn_sets(free: dict[int, list[int]], counts: Counter[int], n_draws: int, seed: int) -> list[HeadSet]:
    rng = np.random.default_rng(seed)
    drawn: dict[HeadSet, None] = {}
    while len(drawn) < n_draws:
        chosen: list[Head] = []
        for layer in sorted(counts):
            heads = rng.choice(free[layer], size=counts[layer], replace=False)
            chosen += [(layer, int(head)) for head in np.sort(heads)]
        drawn.setdefault(tuple(chosen))
    return list(drawn)
