"""Circuits exchanged between behaviors, on planted weights where one path does all."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mneme.batch import Batch
from mneme.circuit_comparison import Searched, crossed_rows
from mneme.circuit_findings import CircuitFindings
from mneme.circuit_search import checked_fractions
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.probes.edge_circuits import edge_circuits
from mneme.promptset import Promptset
from tests.planted import FIRST_ID, copy_model

LENGTH, N_ITEMS = 4, 6
FEW = {"fractions": [0.02, 0.5, 1.0], "ablations": ["corrupt"], "method": "eap"}
FEW |= {"n_random": 0, "n_knockouts": 0, "n_single": 0, "n_exact_top": 0, "n_exact_random": 0}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel(copy_model(), "planted", None, "cpu")


def pairs(n_items: int = N_ITEMS, *, answer: int = LENGTH) -> Promptset:
    """Words and the first of them again: the next one is what followed it, which differs in the corrupt prompt."""
    words = torch.arange(n_items * 9).reshape(n_items, 9)
    said = torch.cat([torch.full((n_items, 1), FIRST_ID), words[:, :8], words[:, :LENGTH]], dim=1)
    changed = said.clone()
    changed[:, 1 + answer] = 100 + torch.arange(n_items)
    return Promptset(
        Batch.of(said),
        corrupt=Batch.of(changed),
        correct_ids=said[:, 1 + LENGTH : 2 + LENGTH],
        wrong_ids=100 + torch.arange(n_items)[:, None],
    )


@pytest.fixture(scope="module")
def found(lm: LanguageModel) -> CircuitFindings:
    return edge_circuits(lm, pairs(), probe_seed=0, **FEW)  # type: ignore[arg-type]


def test_the_path_that_copies_is_the_circuit_and_its_own_behavior_needs_it(
    lm: LanguageModel, found: CircuitFindings
) -> None:
    own = Searched(found, "top-n", None)
    assert own.circuit is not None
    assert own.circuit.edge_names() == ["input->a1.h0<v>", "a1.h0->logits"]
    idle = replace(found, edges=found.edges.clone())
    idle.edges[0] = False
    idle.edges[0, 0, found.graph.slot_of_head(0, "v", 2)] = True  # a head that writes nothing
    idle.edges[0, found.graph.source_of_head(0, 2), -1] = True
    same, other = crossed_rows(lm, pairs(), own, [own, Searched(idle, "top-n", None)], "corrupt", 0)
    assert (same["own_faithfulness"], same["cross_faithfulness"]) == pytest.approx((1, 1))
    assert same["dissociation"] == pytest.approx(0)
    assert other["cross_faithfulness"] == pytest.approx(0, abs=1e-6)
    assert other["dissociation"] == pytest.approx(1)
    assert (other["dissociation_low"], other["dissociation_high"]) == pytest.approx((1, 1))
    assert same["n_items"] == other["n_items"] == N_ITEMS // 2


def test_clusters_of_the_prompts_are_resampled_whole(lm: LanguageModel, found: CircuitFindings) -> None:
    apart = Searched(found, "top-n", np.zeros(N_ITEMS))
    (row,) = crossed_rows(lm, pairs(), apart, [apart], "corrupt", 0)
    assert row["own_faithfulness"] == pytest.approx(1)
    assert math.isnan(row["cross_low"])  # one cluster says nothing about others


def test_a_search_without_a_circuit_has_nothing_to_exchange(lm: LanguageModel, found: CircuitFindings) -> None:
    none = Searched(replace(found, is_selected=torch.zeros(len(found.edges), dtype=torch.bool)), "top-n", None)
    own = Searched(found, "top-n", None)
    forwards = lm.forwards
    (row,) = crossed_rows(lm, pairs(), none, [own], "corrupt", 0)
    assert (math.isnan(row["cross_faithfulness"]), row["n_items"]) == (True, None)
    assert lm.forwards == forwards
    empty, full = crossed_rows(lm, pairs(), own, [none, own], "corrupt", 0)
    assert math.isnan(empty["dissociation"])
    assert full["cross_faithfulness"] == pytest.approx(1)


def test_prompts_without_a_gap_or_with_one_that_falls_are_not_applicable(lm: LanguageModel) -> None:
    with pytest.raises(NotApplicable, match=r"there is nothing to explain: it must rise by 0\.5"):
        edge_circuits(lm, pairs(answer=6), probe_seed=0, **FEW)  # type: ignore[arg-type]
    prompts = pairs()
    turned = replace(prompts, correct_ids=prompts.wrong_ids, wrong_ids=prompts.correct_ids)
    with pytest.raises(NotApplicable, match="it falls, so that a circuit that keeps it would keep a mistake"):
        edge_circuits(lm, turned, probe_seed=0, **FEW)  # type: ignore[arg-type]


def test_prompts_without_pairs_or_answers_and_a_single_one_are_not_applicable(lm: LanguageModel) -> None:
    for prompts, sentence in (
        (replace(pairs(), corrupt=None), "has no corrupt ones"),
        (replace(pairs(), wrong_ids=None), "correct and wrong answers"),
        (pairs(1), "give two at least"),
    ):
        with pytest.raises(NotApplicable, match=sentence):
            edge_circuits(lm, prompts, probe_seed=0, **FEW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fractions": [0.5]}, "give a list of at least two"),
        ({"fractions": [0.5, 0.1]}, "let them grow from above 0 to at most 1"),
        ({"fractions": [0.5, 1.5]}, "give a number from 0.0 to below 1.0"),
        ({"ablations": []}, "give a list of different ones"),
        ({"ablations": ["noise"]}, "choose one of corrupt, mean, zero"),
        ({"method": "guess"}, "choose one of eap"),
        ({"search": "all"}, "choose one of top-n, greedy"),
        ({"n_random": -1}, "edge_circuits.n_random is -1"),
        ({"least": 2.0}, "edge_circuits.least is 2.0"),
    ],
)
def test_bad_parameters_are_refused_in_one_sentence(
    lm: LanguageModel, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        edge_circuits(lm, pairs(), probe_seed=0, **(FEW | changes))  # type: ignore[arg-type]


def test_pairs_that_are_all_the_same_are_refused(lm: LanguageModel) -> None:
    prompts = pairs()
    with pytest.raises(BadInput, match="every corrupt prompt is its clean prompt"):
        edge_circuits(lm, replace(prompts, corrupt=prompts.clean), probe_seed=0, **FEW)  # type: ignore[arg-type]


def test_fractions_name_sizes_of_the_graph() -> None:
    assert checked_fractions("here", [0.25, 0.5, 1]) == (0.25, 0.5, 1.0)
