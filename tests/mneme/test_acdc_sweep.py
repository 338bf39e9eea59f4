"""ACDC over its threshold: shares and areas by hand, and the planted path, found whole and alone."""

from __future__ import annotations

import pytest
import torch

from mneme.acdc_sweep import ranked_area, recovery, thresholds
from mneme.batch import Batch
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.probes.acdc import acdc
from mneme.promptset import Promptset
from tests import planted
from tests.found_circuits import EDGES, GRAPH, edges

REFERENCE = Circuit(GRAPH, edges(*EDGES[:2]), 2)
TOKENS = [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]  # 12 stood after 11 before
N_ITEMS = 4


def circuit(*kept: tuple[str, str]) -> Circuit:
    return Circuit(GRAPH, edges(*kept), len(kept))


def copies(answer: int = 12, wrong: int = 20) -> Promptset:
    """Another value in the corrupt prompt, which alone changes what is copied."""
    clean, corrupt = torch.tensor([TOKENS] * N_ITEMS), torch.tensor([[*TOKENS[:3], 20, *TOKENS[4:]]] * N_ITEMS)
    answers = {"correct_ids": torch.full((N_ITEMS, 1), answer), "wrong_ids": torch.full((N_ITEMS, 1), wrong)}
    return Promptset(Batch.of(clean), corrupt=Batch.of(corrupt), **answers)


def copier() -> LanguageModel:
    return LanguageModel(planted.copy_model(induction_scale=12.0).double().requires_grad_(False), "copier", None, "cpu")


def test_thresholds_lie_at_equal_ratios_from_end_to_end() -> None:
    found = thresholds(21, 1e-5, 1.0)
    assert (len(found), float(found[0]), float(found[-1])) == (21, pytest.approx(1e-5), pytest.approx(1.0))
    assert (found[1:] / found[:-1]).tolist() == pytest.approx([10**0.25] * 20)


def test_a_sweep_that_passes_through_the_reference_has_an_area_of_one() -> None:
    found = recovery([Circuit(GRAPH, GRAPH.legal, 9), REFERENCE, circuit()], REFERENCE)
    assert found.true.tolist() == [1, 1, 0]
    assert found.false_alarms.tolist() == [1, 0, 0]
    assert found.area == 1


def test_shares_and_areas_are_those_worked_out_by_hand() -> None:
    found = recovery([circuit(EDGES[0], EDGES[2]), circuit(*EDGES[2:])], REFERENCE)
    assert found.true.tolist() == [0.5, 0]
    assert found.false_alarms.tolist() == pytest.approx([1 / 7, 2 / 7])
    # through (0, 0), (1/7, 1/2), (2/7, 0), (1, 1)
    assert found.area == pytest.approx(1 / 28 + 1 / 28 + 5 / 14)
    worth = torch.zeros(GRAPH.legal.shape)
    assert ranked_area(GRAPH, worth, REFERENCE) == 0.5
    assert ranked_area(GRAPH, worth + edges(EDGES[0]), REFERENCE) == pytest.approx(0.75)
    assert ranked_area(GRAPH, worth - edges(*EDGES[:2]).float(), REFERENCE) == 0


def test_the_planted_path_is_found_whole_and_alone_until_the_threshold_is_more_than_it_is_worth() -> None:
    found = acdc(copier(), copies(), probe_seed=0, n_taus=3, least_tau=1e-3, most_tau=1e3, n_random=2)
    tested = ~found["kl"].values[:, 0].isnan()
    assert int(tested.sum()) == N_ITEMS // 2
    by_tau = {name: curve.values[tested].mean(dim=0).tolist() for name, curve in found.items()}
    assert found["kl"].x.tolist() == pytest.approx([1e-3, 1, 1e3])
    assert by_tau["recovered"] == [1, 1, 0]
    assert by_tau["false_alarms"] == [0, 0, 0]
    assert by_tau["edges_kept"] == pytest.approx([2 / 110, 2 / 110, 0])
    assert by_tau["kl"][:2] == pytest.approx([0, 0], abs=1e-6)
    assert by_tau["kl"][2] > 1
    assert by_tau["kl_of_scores"] == pytest.approx(by_tau["kl"], abs=1e-6)
    assert by_tau["kl_of_random"][0] == pytest.approx(by_tau["kl"][2])  # two random edges copy nothing
    assert torch.isnan(found["kl_of_random"].values[:, 2]).all()  # of a circuit without edges
    assert found["recovery_area"].x.tolist() == [2]
    assert (by_tau["recovery_area"], by_tau["recovery_area_of_scores"]) == ([1], [1])


def test_the_logit_difference_finds_the_same_path() -> None:
    found = acdc(copier(), copies(), probe_seed=0, metric="answer", n_taus=2, least_tau=0.1, n_random=1)
    assert found["recovered"].values.nanmean(dim=0).tolist() == [1, 1]
    assert float(found["recovery_area"].values.nanmean()) == 1


def test_zeros_also_break_what_tells_the_path_where_to_look() -> None:
    found = acdc(copier(), copies(), probe_seed=0, ablation="zero", n_taus=2, least_tau=0.1, n_random=1)
    assert found["recovered"].values.nanmean(dim=0).tolist() == [1, 1]
    assert float(found["false_alarms"].values.nanmean(dim=0)[0]) > 0


def test_bad_input_is_refused_with_its_mend() -> None:
    with pytest.raises(BadInput, match="n_taus"):
        thresholds(1, 1e-5, 1.0)
    with pytest.raises(BadInput, match=r"thresholds go from 1\.0 to 0\.1: let them grow from above 0"):
        thresholds(3, 1.0, 0.1)
    with pytest.raises(BadInput, match="holds 9 of 9 edges, so that none can be missed"):
        recovery([REFERENCE], Circuit(GRAPH, GRAPH.legal, 9))
    other = EdgeGraph.sized(1, 2)
    with pytest.raises(BadInput, match="a circuit is of another graph than the reference"):
        recovery([Circuit(other, other.legal, 1)], REFERENCE)
    with pytest.raises(BadInput, match=r"acdc\.metric"):
        acdc(copier(), copies(), probe_seed=0, metric="loss")  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match="there is nothing to explain"):
        acdc(copier(), copies(33, 34), probe_seed=0)
