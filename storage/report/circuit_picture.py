"""A circuit drawn as a graph: an SVG that stands alone, from the input at the bottom to the logits at the top."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from mneme.errors import BadInput
from storage.report.circuit_layout import Place, layered
from storage.report.drawings import number

MOST_EDGES = 60  # more cannot be told apart
HELPS, HINDERS, UNKNOWN = "#2166ac", "#b2182b", "#6b6b6b"
_STEP = (15, 84)  # pixels from slot to slot and from row to row
_BOX = (54, 26)
_PORTS = {"q": -17, "k": 0, "v": 17}  # where the inputs of a head lie on its lower side
_LEFT, _SIDE, _TOP, _BOTTOM = 74, 44, 64, 40
_LEAST_WIDTH, _LETTER, _LINE = 560, 6.4, 17
_THIN, _THICK = 0.8, 6.5
_SOURCE = re.compile(r"input|a[0-9]+\.h[0-9]+|m[0-9]+")
_SLOT = re.compile(r"a[0-9]+\.h[0-9]+<([qkv])>|m[0-9]+|logits")


Pixels = tuple[int, int]


class DrawnEdge(NamedTuple):
    """An edge by the names of its source and its slot, with its score; None where it has none."""

    source: str
    slot: str
    score: float | None


def circuit_svg(edges: Iterable[tuple[str, str, float | None]], title: str, unit: str) -> str:
    """The edges (source, slot, score) of a circuit, such as `("a0.h1", "a1.h0<k>", -0.3)`, as the text of an SVG.

    Rows are layers, attention below its MLP; edges run upwards, into the query, key or value input of a head. Blue
    edges help (negative scores), red ones work against the readout, and thickness is the size of the score. Of more
    than 60 edges the strongest are drawn, and a sentence says so. networkx lays the rows out, after their order has
    been chosen so that edges cross little. No script, no reference to anything outside.
    Raises: BadInput for names that are no source or slot.
    """
    known = [DrawnEdge(source, slot, _known(score)) for source, slot, score in edges]
    for edge in known:
        if not _SOURCE.fullmatch(edge.source) or not _SLOT.fullmatch(edge.slot):
            raise BadInput(f"{edge.source}->{edge.slot} is no edge: names are such as a0.h1->a1.h2<k> or input->logits")
    drawn = sorted(known, key=lambda edge: -abs(edge.score or 0.0))[:MOST_EDGES]
    places, routes = _laid_out(drawn)
    largest = _largest(drawn)
    parts = [_edge_svg(edge, route, largest) for edge, route in zip(drawn, routes, strict=True)][::-1]
    parts += [_node_svg(node, place) for node, place in places.items()]
    right = max(x for route in [[*places.values()], *routes] for x, _ in route)
    return _framed(parts, places, right, title, _said(drawn, len(known), unit))


def _framed(parts: Sequence[str], places: dict[str, Pixels], right: int, title: str, said: str) -> str:
    """The whole drawing: title on top, names of the rows on the left, what it says below."""
    width = max(_LEAST_WIDTH, right + _SIDE)
    lines = textwrap.wrap(said, int((width - 20) / _LETTER))
    first = max(y for _, y in places.values()) + _BOTTOM
    height = first + _LINE * len(lines)
    levels = {_row(node): y for node, (_, y) in places.items() if _row(node) != node}
    texts = [f'<text x="12" y="24" font-size="14" font-weight="600">{escape(title)}</text>']
    texts += [f'<text x="12" y="{y + 4}" fill="#6b6b6b">{row}</text>' for row, y in levels.items()]
    texts += [f'<text x="12" y="{first + _LINE * at}">{escape(line)}</text>' for at, line in enumerate(lines)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="circuit" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{escape(title)}" font-family="sans-serif" font-size="11"'
        f' fill="#1a1a1a"><rect width="{width}" height="{height}" fill="#ffffff"/>{"".join([*texts, *parts])}</svg>'
    )


def _known(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else score


def _said(drawn: Sequence[DrawnEdge], n_edges: int, unit: str) -> str:
    if not drawn:
        return "The circuit has no edges."
    cut = f"The {len(drawn)} strongest of {n_edges:,} edges. " if len(drawn) < n_edges else f"{n_edges} edges. "
    if n_edges == 1:
        cut = "One edge. "
    scores = [each.score for each in drawn if each.score is not None]
    colours = "Blue helps, red works against it; " if scores else "No edge has a score. "
    thickness = f"the thickest carries {number(_largest(drawn))} {unit}. " if scores else ""
    return f"{cut}{colours}{thickness}Edges run upwards, into the query (q), key (k) or value (v) of a head."


def _largest(drawn: Sequence[DrawnEdge]) -> float:
    return max((abs(each.score) for each in drawn if each.score is not None), default=0.0)


def _reader(slot: str) -> str:
    """The node that a slot belongs to: `a1.h2` of `a1.h2<k>`."""
    return slot.partition("<")[0]


def _row(node: str) -> str:
    """Where a node stands: `input`, `heads 3`, `MLP 3` or `logits`."""
    if node in ("input", "logits"):
        return node
    kind, layer = ("heads", node[1:].partition(".")[0]) if node.startswith("a") else ("MLP", node[1:])
    return f"{kind} {layer}"


def _rank(row: str) -> int:
    """Rows from the input upwards."""
    if row == "input":
        return -1
    kind, _, layer = row.partition(" ")
    return 2 * int(layer) + (kind == "MLP") if layer else 1 << 30


def _natural(node: str) -> tuple[int, int]:
    """Nodes by row and number."""
    digits = node.rpartition("h")[2] if node.startswith("a") else "0"
    return _rank(_row(node)), int(digits)


def _laid_out(drawn: Sequence[DrawnEdge]) -> tuple[dict[str, Pixels], list[list[Pixels]]]:
    """The middle of each node, and what each edge runs through; the input lies at the bottom."""
    ends = [(edge.source, _reader(edge.slot)) for edge in drawn]
    nodes = sorted({"input", "logits", *(node for pair in ends for node in pair)}, key=_natural)
    layout = layered(ends, {node: _rank(_row(node)) for node in nodes})
    room = max(0, _LEAST_WIDTH - _LEFT - 2 * _SIDE - (layout.n_slots - 1) * _STEP[0])

    def pixels(place: Place) -> Pixels:
        slot, row = place
        return (
            round(_LEFT + _SIDE + room / 2 + slot * _STEP[0]),
            _TOP + (layout.n_rows - 1 - row) * _STEP[1],
        )

    places = {node: pixels(place) for node, place in layout.nodes.items()}
    return places, [[pixels(place) for place in route] for route in layout.routes]


def _edge_svg(edge: DrawnEdge, route: Sequence[Pixels], largest: float) -> str:
    (x, y), *between, (to_x, to_y) = route
    to_x += _PORTS.get(edge.slot[-2:-1], 0) if edge.slot.endswith(">") else 0
    line = f"M{x} {y - _BOX[1] // 2}"
    at = (x, y - _BOX[1] // 2)
    for next_x, next_y in [*between, (to_x, to_y + _BOX[1] // 2)]:
        bend = (at[1] - next_y) // 2
        line += f"C{at[0]} {at[1] - bend} {next_x} {next_y + bend} {next_x} {next_y}"
        at = (next_x, next_y)
    colour = UNKNOWN if edge.score is None else HELPS if edge.score < 0 else HINDERS
    share = abs(edge.score) / largest if edge.score is not None and largest else 0.0
    width = _THIN + (_THICK - _THIN) * share
    said = escape(f"{edge.source} → {edge.slot}: {number(edge.score)}")
    return (
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-opacity="0.75">'
        f"<title>{said}</title></path>"
    )


def _node_svg(node: str, place: Pixels) -> str:
    x, y = place
    width, height = _BOX
    below = y + height // 2 - 2
    ports = "".join(
        f'<text x="{x + offset}" y="{below}" font-size="8" fill="#6b6b6b" text-anchor="middle">{name}</text>'
        for name, offset in _PORTS.items()
        if node.startswith("a")
    )
    rise = 1 if ports else 4
    return (
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="5" fill="#f6f4ef"'
        f' stroke="#8d8a84"/><text x="{x}" y="{y + rise}" text-anchor="middle">{escape(node)}</text>{ports}'
    )
