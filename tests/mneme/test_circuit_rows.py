"""Rows of circuits from findings made by hand: shares, controls and measures that can be worked out on paper."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from mneme.batch import Batch
from mneme.circuit_comparison import Searched, overlap_rows, random_jaccard
from mneme.circuit_findings import CircuitFindings, share_kept
from mneme.circuit_measures import standing
from mneme.circuit_rows import summarise_circuits
from mneme.probe import Probe, probes
from mneme.promptset import Promptset
from tests.found_circuits import EDGES, GRAPH, N_FOUND, N_TESTED, edges, findings, run

PARAMETERS = {"ablations": ["corrupt", "zero"], "method": "eap", "rule": "midpoint", "search": "top-n"}


def tables(found: CircuitFindings, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    prompts = Promptset(Batch.of(torch.ones(N_FOUND + N_TESTED, 3, dtype=torch.int64)))
    probe: Probe = probes.get("edge_circuits")
    return summarise_circuits(probe, found.arrays(), prompts, PARAMETERS | changes, 0)


@cache
def standard() -> dict[str, list[dict[str, Any]]]:
    """The rows of the findings as they are, made once: a thousand resamples take a second."""
    return tables(findings())


def test_findings_come_back_from_their_arrays() -> None:
    found = findings()
    again = CircuitFindings.of_arrays(found.arrays())
    assert again.graph == GRAPH
    assert [each.n_edges for each in again.circuits] == [0, 2, 4, 9]
    assert again.selected == 1
    assert set(again.runs) == {"corrupt", "zero"}
    assert torch.equal(again.runs["zero"], found.runs["zero"])


def test_faithfulness_is_the_share_of_the_gap_and_an_empty_circuit_keeps_nothing() -> None:
    rows = standard()["circuits"]
    corrupt = [row for row in rows if row["ablation"] == "corrupt"]
    assert [row["faithfulness"] for row in corrupt] == pytest.approx([0, 0.9, 0.95, 1])
    assert [row["n_edges"] for row in corrupt] == [0, 2, 4, 9]
    assert [row["n_nodes"] for row in corrupt] == [0, 1, 2, 2]
    assert [row["ci_low"] for row in corrupt] == pytest.approx([0, 0.9, 0.95, 1])  # the same on every prompt
    assert {row["n_items"] for row in rows} == {N_TESTED}
    assert [row["faithfulness"] for row in rows[4:]] == pytest.approx([0, 0.5, 0.5, 1])


def test_controls_stand_under_the_first_ablation_and_where_circuits_of_that_size_were_drawn() -> None:
    rows = standard()["circuits"]
    empty, selected, larger, whole = rows[:4]
    assert [row["completeness"] for row in rows[:4]] == pytest.approx([1, 0.1, 0, 0])
    assert (selected["control_mean"], selected["control_n_edges"]) == pytest.approx((0.1, 2.5))
    assert (selected["n_draws"], selected["p_value"]) == (2, pytest.approx(1 / 3))
    assert larger["n_draws"] == 2
    assert torch.isnan(
        torch.tensor([row[name] for row in (empty, whole) for name in ("control_mean", "p_value")])
    ).all()
    assert (selected["incompleteness"], selected["minimality"]) == pytest.approx((0.2, 0.5))
    assert torch.isnan(torch.tensor([larger["incompleteness"], larger["minimality"]])).all()
    under_zero = [row[name] for row in rows[4:] for name in ("completeness", "control_mean", "minimality")]
    assert torch.isnan(torch.tensor(under_zero)).all()


def test_an_ablation_that_changes_nothing_has_no_shares() -> None:
    none = run(0.0, 0.9, 0.95, 1.0, whole=torch.tensor([1.0, 2.0, 3.0]), empty=torch.tensor([2.0, 2.0, 2.0]))
    found = tables(findings(runs={"corrupt": run(0.0, 0.9, 0.95, 1.0), "zero": none}))
    lost = [row for row in found["circuits"] if row["ablation"] == "zero"]
    assert torch.isnan(torch.tensor([row["faithfulness"] for row in lost])).all()
    areas = {row["measure"]: row["value"] for row in found["circuit_measures"] if row["ablation"] == "zero"}
    assert torch.isnan(torch.tensor([areas["cpr"], areas["cmd"]])).all()


def test_every_edge_has_a_row_with_its_exact_effect_and_the_smallest_circuit_that_holds_it() -> None:
    rows = standard()["circuit_edges"]
    assert len(rows) == GRAPH.n_edges == 9
    by_name = {(row["source"], row["destination"]): row for row in rows}
    assert [by_name[each]["least_requested"] for each in EDGES] == [2, 2, 4, 4]
    assert [by_name[each]["is_selected"] for each in EDGES] == [True, True, False, False]
    assert [by_name[each]["exact_effect"] for each in EDGES[:2]] == [-5, -2]
    assert by_name["input", "logits"]["score"] == pytest.approx(0.01)
    assert by_name["input", "logits"]["least_requested"] == 9


def test_measures_are_areas_checks_and_stabilities() -> None:
    rows = standard()["circuit_measures"]
    found = {(row["measure"], row["ablation"] or row["level"]): row for row in rows}
    sizes, f = torch.tensor([1, 2, 4, 9]) / 9, torch.tensor([0, 0.9, 0.95, 1])
    cpr = found["cpr", "corrupt"]
    assert cpr["value"] == pytest.approx(float(torch.trapezoid(f, sizes)))
    assert cpr["ci_low"] == pytest.approx(cpr["value"]) == pytest.approx(cpr["ci_high"])
    assert found["cmd", "corrupt"]["value"] == pytest.approx(float(torch.trapezoid(1 - f, sizes)))
    assert found["exact_sign_agreement", None]["value"] == 1
    change = abs(-4 - 0.2 + 5 * 0.01 - -4) / 4
    assert found["score_completeness_error", None]["value"] == pytest.approx(change)
    assert [found["bootstrap_jaccard", level]["value"] for level in ("edge", "node")] == [1, 1]
    assert [found["split_half_jaccard", level]["value"] for level in ("edge", "node")] == [1, 1]


def test_a_search_without_a_selected_circuit_stands_for_its_largest_part_of_the_model() -> None:
    none = torch.zeros(4, dtype=torch.bool)
    assert standing(findings()) == 2
    assert standing(findings(is_selected=none)) == 4
    assert standing(findings(is_selected=none[:1], edges=GRAPH.legal[None], n_requested=torch.tensor([9]))) is None


def test_shares_are_of_means_over_prompts() -> None:
    uneven = torch.tensor([[3.0, 1.0], [5.0, 1.0]]).double()
    assert float(share_kept(torch.tensor([2.0, 2.0]), uneven)) == pytest.approx(1 / 3)


def searched(*kept: tuple[str, str]) -> Searched:
    circuits = torch.stack([edges(), edges(*kept), edges(*EDGES), GRAPH.legal])
    return Searched(findings(edges=circuits), "top-n", None)


def test_two_circuits_share_edges_and_nodes_each_of_its_size_and_both_of_one() -> None:
    rows = overlap_rows(searched(*EDGES[:2]), searched(*EDGES[2:]), 0)
    assert [(row["selection"], row["level"]) for row in rows] == [
        ("faithful", "edge"),
        ("faithful", "node"),
        ("matched", "edge"),
        ("matched", "node"),
    ]
    assert [row["n_shared"] for row in rows] == [0, 0, 0, 0]
    assert [row["n_universe"] for row in rows] == [9, 2, 9, 2]
    assert {row["ceiling"] for row in rows} == {1}
    same = overlap_rows(searched(*EDGES[:2]), searched(*EDGES[:2]), 0)
    assert [row["jaccard"] for row in same] == [1, 1, 1, 1]
    assert same[0]["p_value"] == pytest.approx(1 / 36)  # of 9 edges, the same 2
    assert same[0]["score_cosine"] == pytest.approx(1)
    assert 0 < same[0]["control"] < 1


def test_what_found_no_circuit_is_not_compared() -> None:
    none = Searched(findings(is_selected=torch.zeros(4, dtype=torch.bool)), "top-n", None)
    assert overlap_rows(none, searched(*EDGES[:2]), 0) == []
    assert overlap_rows(searched(*EDGES[:2]), none, 0) == []


def test_random_circuits_of_the_whole_graph_share_all_and_the_same_seed_gives_the_same() -> None:
    assert random_jaccard(GRAPH, 9, 9, "edge", 0) == 1
    assert random_jaccard(GRAPH, 2, 2, "edge", 0) == random_jaccard(GRAPH, 2, 2, "edge", 0)
