"""Where the nodes of a drawn circuit stand and how its edges run, so that no edge passes behind a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_SWEEPS = 16  # through the rows, each putting everything where its neighbours are
_SLOTS = 5  # of a row that a node takes; an edge that passes takes one
Place = tuple[float, int]
Passed = tuple[int, int]  # an edge, by its number, and a row that it crosses


@dataclass(frozen=True)
class Layout:
    """Places (slot, row) of nodes by name, rows from 0 upwards; of each edge those it runs through, both ends included.

    Slots are whole or half numbers from 0; n_slots: of the widest row.
    """

    nodes: dict[str, Place]
    routes: list[list[Place]]
    n_slots: int
    n_rows: int


def layered(edges: Sequence[tuple[str, str]], ranks: Mapping[str, int]) -> Layout:
    """The layout of edges (source, reader) whose nodes stand in rows by rank, low ranks first.

    An edge takes room of its own in every row between its ends. The order in a row follows the mean place of the
    neighbours in the row before, upwards and downwards in turns; networkx then places the rows.
    """
    levels = {rank: row for row, rank in enumerate(sorted(set(ranks.values())))}
    rows: list[list[str | Passed]] = [[] for _ in levels]
    for node, rank in ranks.items():
        rows[levels[rank]].append(node)
    chains: list[list[str | Passed]] = []
    for at, (source, reader) in enumerate(edges):
        passed: list[Passed] = [(at, row) for row in range(levels[ranks[source]] + 1, levels[ranks[reader]])]
        for each in passed:
            rows[each[1]].append(each)
        chains.append([source, *passed, reader])
    _order(rows, chains)
    x = _placed(rows)
    row_of = {each: row for row, members in enumerate(rows) for each in members}
    routes = [[(x[each], row_of[each]) for each in chain] for chain in chains]
    nodes = {node: (x[node], row_of[node]) for node in ranks}
    return Layout(nodes, routes, max(map(_width, rows)), len(rows))


def _order(rows: list[list[str | Passed]], chains: Sequence[Sequence[str | Passed]]) -> None:
    """Sort each row by where its neighbours stand, again and again."""
    below: dict[str | Passed, list[str | Passed]] = {each: [] for row in rows for each in row}
    above: dict[str | Passed, list[str | Passed]] = {each: [] for row in rows for each in row}
    for chain in chains:
        for low, high in pairwise(chain):
            below[high].append(low)
            above[low].append(high)
    x = {each: place for row in rows for each, place in zip(row, _middles(row), strict=True)}
    for sweep in range(_SWEEPS):
        beside, upwards = (above, reversed(rows)) if sweep % 2 else (below, iter(rows))
        for row in upwards:
            wanted = {
                each: sum(x[other] for other in beside[each]) / len(beside[each]) if beside[each] else x[each]
                for each in row
            }
            row.sort(key=wanted.__getitem__)
            x |= zip(row, _middles(row), strict=True)


def _placed(rows: Sequence[Sequence[str | Passed]]) -> dict[str | Passed, float]:
    """The middle of everything in slots, from networkx's layout of the single slots; the widest row begins at 0."""
    # networkx takes half a second to import, and most who import this module draw nothing
    import networkx as nx  # noqa: PLC0415

    slots: dict[int, list[Any]] = {
        row: [(each, slot) for each in members for slot in range(_size(each))] for row, members in enumerate(rows)
    }
    graph = nx.Graph()
    graph.add_nodes_from(slot for row in slots.values() for slot in row)
    found = nx.multipartite_layout(graph, subset_key=slots, align="horizontal")
    widest = max(slots.values(), key=len)
    left, right = (float(found[widest[end]][0]) for end in (0, -1))
    unit = (right - left) / max(1, len(widest) - 1) or 1.0
    middles = {each: (found[each, 0][0] + found[each, _size(each) - 1][0]) / 2 for row in rows for each in row}
    return {each: round((float(x) - left) / unit * 2) / 2 for each, x in middles.items()}


def _size(each: str | Passed) -> int:
    return _SLOTS if isinstance(each, str) else 1


def _width(row: Sequence[str | Passed]) -> int:
    return sum(map(_size, row))


def _middles(row: Sequence[str | Passed]) -> list[float]:
    """The middle of each member of a row, from the middle of the row."""
    places, left = [], -_width(row) / 2
    for each in row:
        places.append(left + _size(each) / 2)
        left += _size(each)
    return places
