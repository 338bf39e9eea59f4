"""Circuits drawn: rows from the input up, colour by sign, thickness by score, nothing from outside."""

from __future__ import annotations

import re
from itertools import pairwise
from math import nan
from xml.etree import ElementTree as ET

import pytest

from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput
from storage.report.circuit_picture import HELPS, HINDERS, UNKNOWN, circuit_svg

SVG = "{http://www.w3.org/2000/svg}"
PATH = [("input", "a0.h0<v>", -0.5), ("a0.h0", "a1.h1<k>", -1.0), ("a1.h1", "m1", 0.25), ("m1", "logits", None)]


def read(text: str) -> ET.Element:
    return ET.fromstring(text)


def boxes(svg: ET.Element) -> dict[str, tuple[float, float]]:
    """The left upper corner of the box of each node."""
    return {
        texts.text or "": (float(box.attrib["x"]), float(box.attrib["y"]))
        for box, texts in pairwise(list(svg))
        if box.tag == f"{SVG}rect" and "rx" in box.attrib
    }


def edges(svg: ET.Element) -> dict[str, dict[str, str]]:
    return {path[0].text or "": path.attrib for path in svg.iter(f"{SVG}path")}


def test_rows_rise_from_the_input_to_the_logits() -> None:
    found = boxes(read(circuit_svg(PATH, "copying", "logits")))
    heights = [found[name][1] for name in ("input", "a0.h0", "a1.h1", "m1", "logits")]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 5
    assert set(found) == {"input", "a0.h0", "a1.h1", "m1", "logits"}


def test_colour_tells_the_sign_and_thickness_the_score() -> None:
    drawn = edges(read(circuit_svg(PATH, "copying", "logits")))
    assert [drawn[each]["stroke"] for each in drawn] == [UNKNOWN, HINDERS, HELPS, HELPS]  # the strongest on top
    widths = {name.partition(":")[0]: float(each["stroke-width"]) for name, each in drawn.items()}
    assert widths["a0.h0 → a1.h1<k>"] == 6.5
    assert widths["input → a0.h0<v>"] == pytest.approx(0.8 + 5.7 / 2, abs=0.05)
    assert widths["m1 → logits"] == 0.8
    assert "a1.h1 → m1: 0.25" in drawn
    assert "m1 → logits: –" in drawn


def test_edges_end_at_the_query_the_key_or_the_value_of_a_head() -> None:
    three = [("input", f"a0.h0<{part}>", -1.0) for part in "qkv"] + [("a0.h0", "logits", -1.0)]
    svg = read(circuit_svg(three, "parts", "logits"))
    ends = {name: float(each["d"].split()[-2]) for name, each in edges(svg).items()}
    at = [ends[f"input → a0.h0<{part}>: −1"] for part in "qkv"]
    assert at == sorted(at)
    assert len(set(at)) == 3


def test_only_the_strongest_of_many_edges_are_drawn_and_a_sentence_says_so() -> None:
    graph = EdgeGraph.sized(3, 4)
    names = [name.split("->") for name in graph.edge_names([(int(a), int(b)) for a, b in graph.legal.nonzero()])]
    many = [(source, slot, (-1) ** at * at / 100) for at, (source, slot) in enumerate(names)]
    text = circuit_svg(many, "many", "logits")
    drawn = edges(read(text))
    assert len(drawn) == 60
    assert min(abs(float(name.split(": ")[1].replace("−", "-"))) for name in drawn) >= (len(many) - 60) / 100 - 0.01
    assert f"The 60 strongest of {len(many)} edges." in text
    assert "strongest" not in circuit_svg(many[:60], "few", "logits")


def test_no_two_nodes_lie_on_each_other_and_all_lie_inside() -> None:
    graph = EdgeGraph.sized(4, 8)
    names = [name.split("->") for name in graph.edge_names([(int(a), int(b)) for a, b in graph.legal.nonzero()[::37]])]
    svg = read(circuit_svg([(source, slot, -1.0) for source, slot in names], "wide", "logits"))
    found = boxes(svg)
    _, _, width, height = (float(each) for each in svg.attrib["viewBox"].split())
    assert len(found) > 20
    for name, (x, y) in found.items():
        assert x >= 60
        assert x + 54 <= width
        assert 40 <= y <= height - 60
        assert not any(abs(x - u) < 60 and abs(y - v) < 60 for other, (u, v) in found.items() if other != name)


def test_no_edge_runs_behind_a_node() -> None:
    graph = EdgeGraph.sized(4, 8)
    names = [name.split("->") for name in graph.edge_names([(int(a), int(b)) for a, b in graph.legal.nonzero()[5::29]])]
    svg = read(circuit_svg([(source, slot, -1.0) for source, slot in names], "wide", "logits"))
    crossed = 0
    for path in edges(svg).values():
        for curve in path["d"].split("C")[1:-1]:
            x, y = (float(each) for each in curve.split()[-2:])
            crossed += 1
            assert x + 5 < float(svg.attrib["width"])
            assert not any(u <= x <= u + 54 and v <= y <= v + 26 for u, v in boxes(svg).values())
    assert crossed > 50


def test_neighbours_stand_above_each_other() -> None:
    crossed = [("input", f"a0.h{head}<v>", -1.0) for head in range(4)]
    crossed += [(f"a0.h{head}", f"a1.h{3 - head}<k>", -1.0) for head in range(4)]
    crossed += [(f"a1.h{head}", "logits", -1.0) for head in range(4)]
    found = boxes(read(circuit_svg(crossed, "crossed", "logits")))
    assert [found[f"a0.h{head}"][0] for head in range(4)] == [found[f"a1.h{3 - head}"][0] for head in range(4)]


def test_a_circuit_without_edges_says_so() -> None:
    text = circuit_svg([], "nothing", "logits")
    assert "The circuit has no edges." in text
    assert set(boxes(read(text))) == {"input", "logits"}


def test_scores_that_are_missing_are_grey_and_said() -> None:
    text = circuit_svg([("input", "logits", nan)], "membership", "logits")
    assert "One edge. No edge has a score." in text
    assert UNKNOWN in text


def test_the_drawing_stands_alone_and_escapes_what_it_is_given() -> None:
    text = circuit_svg(PATH, "<script>alert('a' & \"b\")</script>", "<unit>")
    assert "<script" not in text
    assert "<unit>" not in text
    assert read(text).attrib["aria-label"] == "<script>alert('a' & \"b\")</script>"
    assert re.findall(r"(?:href|src|url|onload|style)\s*[=(]", text) == []
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_the_same_circuit_gives_the_same_drawing() -> None:
    assert circuit_svg(PATH, "a", "logits") == circuit_svg(list(PATH), "a", "logits")


@pytest.mark.parametrize("edge", [("a0", "logits"), ("input", "a0.h0"), ("logits", "m0"), ("input", "input")])
def test_names_of_no_edge_are_refused(edge: tuple[str, str]) -> None:
    with pytest.raises(BadInput, match="is no edge: names are such as"):
        circuit_svg([(*edge, 1.0)], "bad", "logits")
