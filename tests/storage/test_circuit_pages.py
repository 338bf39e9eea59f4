"""Circuits as figures and on the page: rows made by hand, and what is drawn of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.report.circuit_panels import behavior_matrices, checkpoint_matrices, faithfulness_panels
from storage.report.circuit_pictures import (
    checkpoint_pictures,
    circuit_pictures,
    faithfulness_pictures,
    overlap_pictures,
)
from storage.report.page import write_report
from storage.report.pictures import Looks
from storage.warehouse import publish
from tests.storage.circuits import EDGES, FACTS, circuit_rows, deliver_circuits, overlap_row
from tests.storage.rows import deliver_answer, deliver_trial

PNG = b"\x89PNG"
LOOKS = Looks({"tiny": 0})
ABOUT = {"model": "tiny", "model_seed": 0, "promptset_seed": 0, "probe": "edge_circuits", "variant": "primary"}


def of_trial(promptset: str = "ioi", **changes: Any) -> list[dict[str, Any]]:
    about = ABOUT | {"promptset": promptset, "trial_id": f"t-{promptset}", "unit": "share of the behavior"}
    about |= {"is_descriptive": False} | changes
    return [row | about for ablation in ("mean", "corrupt") for row in circuit_rows(ablation)]


def overlaps() -> list[dict[str, Any]]:
    """Two behaviors that share half, whose circuits keep .4 of each other."""
    pairs = [("ioi", "needle"), ("needle", "ioi")]
    return [
        overlap_row("tiny", a, b, selection=selection) | {"unit": "Jaccard index"}
        for a, b in pairs
        for selection in ("faithful", "matched")
    ]


def test_faithfulness_is_drawn_under_the_ablation_that_selected_with_a_panel_per_promptset() -> None:
    rows = of_trial() + of_trial("needle") + of_trial("needle", variant="greedy")
    ((model, panels),) = faithfulness_panels(rows).items()
    assert model == "tiny[0]"
    assert [panel.title for panel in panels] == ["ioi[0]", "needle[0]"]
    assert [len(panel.lines) for panel in panels] == [1, 2]
    first = panels[0]
    assert first.lines[0].points[2] == (78 / 200, 0.9, pytest.approx(0.85), pytest.approx(0.95))
    assert first.random == ((36 / 200, 0.1, 0.1, 0.1), (78 / 200, 0.2, 0.2, 0.2))


def test_a_matrix_holds_overlaps_of_one_size_beside_ceilings_and_what_circuits_do_for_each_other() -> None:
    (found,) = behavior_matrices(overlaps())
    assert found.names == ("ioi", "needle")
    assert found.jaccard == ((0.75, 0.5), (0.5, 0.75))
    assert found.faithfulness == ((0.9, 0.4), (0.4, 0.9))
    assert all(png.startswith(PNG) for png in found.figures().values())


def test_behaviors_that_were_not_compared_leave_no_number() -> None:
    (found,) = behavior_matrices([row for row in overlaps() if row["promptset"] == "ioi"] + overlaps()[3:])
    assert math.isnan(found.faithfulness[1][1])
    assert found.jaccard[1] == (0.5, 0.75)
    assert behavior_matrices([]) == []
    assert behavior_matrices([row for row in overlaps() if row["selection"] == "faithful"]) == []


def between_steps(*pairs: tuple[int, int, float, float | None]) -> list[dict[str, Any]]:
    """Circuits of one behavior at two steps, both of one size: (step, other step, Jaccard, ceiling)."""
    return [
        overlap_row("tiny", "ioi", "ioi", step=a, other_step=b, selection="matched", jaccard=jaccard, ceiling=ceiling)
        | {"unit": "Jaccard index"}
        for a, b, jaccard, ceiling in pairs
    ]


def test_steps_of_one_training_stand_in_their_order_with_the_mean_of_their_ceilings_on_the_diagonal() -> None:
    rows = between_steps((1024, 64, 0.2, 0.5), (1024, 512, 0.4, 0.7), (64, 512, 0.1, None), (512, 1024, 0.4, 0.8))
    (found,) = checkpoint_matrices(rows)
    assert (found.title, found.names) == ("tiny[0] ioi", ("64", "512", "1024"))
    assert found.jaccard[2] == (0.2, 0.4, pytest.approx(0.6))
    assert found.jaccard[1][1:] == (0.8, 0.4)
    assert math.isnan(found.jaccard[0][0])  # it has no ceiling
    assert math.isnan(found.jaccard[0][2])  # and was not compared this way round
    assert found.figure().startswith(PNG)
    (drawn,) = checkpoint_pictures(rows)
    ET.fromstring(drawn.panels[0][1])
    assert "1024, 64: 0.200" in drawn.panels[0][1]
    assert checkpoint_matrices([row | {"selection": "faithful"} for row in rows]) == []


def test_the_page_draws_lines_matrices_and_graphs_that_are_well_formed() -> None:
    (lines,) = faithfulness_pictures(of_trial() + of_trial("needle"), LOOKS)
    assert (lines.kind, lines.title) == ("circuits", "edge_circuits: eap, other edges corrupt")
    assert [label for label, _ in lines.panels] == ["ioi", "needle"]
    shared, crossed = overlap_pictures(overlaps())
    assert [each.kind for each in (shared, crossed)] == ["overlaps", "overlaps"]
    edges = [
        {"source": source, "destination": slot, "score": score, "promptset": "ioi", "trial_id": "t", "unit": "logits"}
        | ABOUT
        for source, slot, score, _ in EDGES
    ]
    (graph,) = circuit_pictures(edges)
    assert (graph.kind, graph.panels[0][0]) == ("graphs", "tiny[0]")
    for each in (lines, shared, crossed, graph):
        for _, svg in each.panels:
            ET.fromstring(svg)
    assert "ioi, needle: 0.400" in crossed.panels[0][1]
    assert shared.panels[0][1].count("<rect") == 4


def test_nothing_is_drawn_of_nothing() -> None:
    assert faithfulness_panels([]) == {}
    assert (faithfulness_pictures([], LOOKS), overlap_pictures([]), circuit_pictures([])) == ([], [], [])
    assert checkpoint_pictures([]) == []
    empty = [row | {"n_edges": 0} for row in of_trial()]
    assert faithfulness_pictures(empty, LOOKS) == []


def test_a_study_of_steps_has_a_part_on_its_page(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lake, name = Lake(home.lake), "t-tiny-ioi-edge_circuits"
    deliver_trial(lake, "d1", trial_id=name, model="tiny", promptset="ioi", step=64, **FACTS)
    deliver_answer(lake, "example", name, "d1")
    deliver_circuits(lake, "d1")
    row = overlap_row("tiny", "ioi", "ioi", step=64, other_step=256, other_trial_id="t2", selection="matched")
    lake.deliver("circuit_overlap", "example", pl.DataFrame([row]))
    publish(home)
    page = write_report(home, "example", tmp_path / "page.html").read_text()
    assert '<a href="#checkpoints">Circuits over training</a>' in page
    assert "tiny[0]@64 · ioi[0]" in page
