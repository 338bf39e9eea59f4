"""Circuits traced backwards by path patching: planted heads stand at their stage, and overlap as counted by hand."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest
import torch

from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking
from mneme.ioi_classes import abc_of
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.path_stages import STAGES, heads_in, stage_effects, top_heads
from mneme.paths import path_patch
from mneme.primary_readout import primary_readout
from mneme.probe import probes
from mneme.probes.head_reuse import head_reuse
from mneme.probes.path_patching import path_patching
from mneme.promptset import Promptset
from tests.ioi_prompts import ioi_prompts
from tests.planted import ioi_model, save

MOVER, NEGATIVE, INHIBITION = (1, 0), (1, 1), (0, 1)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(ioi_model(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    return ioi_prompts(8)


def effects_of(lm: LanguageModel, prompts: Promptset, stage: str, share: float = 0.25) -> torch.Tensor:
    return stage_effects(lm, prompts.clean, abc_of(prompts), primary_readout(prompts), stage, share)


def test_movers_lead_to_the_logits_and_the_inhibition_head_to_their_queries(
    lm: LanguageModel, prompts: Promptset
) -> None:
    to_logits, to_queries = (effects_of(lm, prompts, stage) for stage in ("logits", "queries"))
    assert set(heads_in(top_heads(to_logits, 0.25))) == {MOVER, NEGATIVE}
    assert float(to_logits.mean(dim=0)[MOVER]) > 0 > float(to_logits.mean(dim=0)[NEGATIVE])
    assert heads_in(top_heads(to_queries, 0.25)) == [INHIBITION]
    assert torch.equal(to_queries[:, 1], torch.zeros(8, 4))  # heads of the movers' own layer come too late


def test_nothing_leads_to_the_values_of_heads_of_the_first_layer(lm: LanguageModel, prompts: Promptset) -> None:
    assert torch.equal(effects_of(lm, prompts, "values"), torch.zeros(8, 2, 4))


def test_a_stage_is_path_patching_into_the_top_heads_of_the_one_before(lm: LanguageModel, prompts: Promptset) -> None:
    readout, corrupt = primary_readout(prompts), abc_of(prompts)
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    receivers = [(*MOVER, "q"), (*NEGATIVE, "q")]
    patched = path_patch(lm, prompts.clean, corrupt, readout, heads, receivers, positions="end")  # type: ignore[arg-type]
    clean = readout(lm.logits(prompts.clean)[:, -1])
    expected = (clean[:, None] - patched).reshape(8, 2, 4)
    torch.testing.assert_close(effects_of(lm, prompts, "queries"), expected, atol=1e-3, rtol=1e-5)


def test_top_heads_are_a_share_of_all_and_never_those_without_effect() -> None:
    effects = torch.tensor([[[0.5, -2.0, 0.0], [1.0, 0.5, 0.0]]])
    assert heads_in(top_heads(effects, 0.01)) == [(0, 1)]
    assert heads_in(top_heads(effects, 0.5)) == [(0, 0), (0, 1), (1, 0)]  # of the two at 0.5 the earlier one
    assert heads_in(top_heads(effects, 0.99)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert heads_in(top_heads(torch.zeros(1, 2, 3), 0.5)) == []


def test_the_probe_gives_the_effects_of_its_stage(lm: LanguageModel, prompts: Promptset) -> None:
    for stage in STAGES:
        found = path_patching(lm, prompts, stage=stage, share=0.25)
        torch.testing.assert_close(found, effects_of(lm, prompts, stage))


def test_a_behavior_shares_all_its_heads_with_itself_and_none_with_one_of_other_heads(
    lm: LanguageModel, prompts: Promptset
) -> None:
    own = Ranking(path_patching(lm, prompts), is_elsewhere=True)
    other = Ranking(torch.zeros(3, 2, 4), is_elsewhere=True)
    other.scores[:, 0, 2:] = 1.0
    for ranking, n_shared, p_value in ((own, 2, 1 / comb(8, 2)), (other, 0, 1.0)):
        curves = head_reuse(lm, prompts, ranking, probe_seed=0, shares=[0.25])
        said = {name: curve.values[0, 0].item() for name, curve in curves.items()}
        assert said["n_shared"] == n_shared
        assert (said["n_here"], said["n_there"]) == (2, 2)
        assert said["jaccard"] == said["overlap_coefficient"] == n_shared / 2
        assert said["p_value"] == pytest.approx(p_value)
        assert curves["n_shared"].values.shape == (8, 1)


def test_half_of_the_heads_shared_has_the_right_tail_of_the_hypergeometric(
    lm: LanguageModel, prompts: Promptset
) -> None:
    other = Ranking(torch.zeros(3, 2, 4), is_elsewhere=True)
    other.scores[:, 0, 2], other.scores[:, 1, 0] = 1.0, -1.0
    curves = head_reuse(lm, prompts, other, probe_seed=0, shares=[0.25])
    assert float(curves["n_shared"].values[0, 0]) == 1
    assert float(curves["p_value"].values[0, 0]) == pytest.approx((2 * 6 + 1) / comb(8, 2))
    assert float(curves["jaccard"].values[0, 0]) == pytest.approx(1 / 3)


def test_the_heads_of_either_behavior_are_named_with_their_effects_shared_ones_first(
    lm: LanguageModel, prompts: Promptset
) -> None:
    other = Ranking(torch.zeros(3, 2, 4), is_elsewhere=True)
    other.scores[:, 0, 2], other.scores[:, 1, 0] = 1.0, -1.0
    curves = head_reuse(lm, prompts, other, probe_seed=0, share=0.25)
    said = {name: curve.values[0].tolist() for name, curve in curves.items()}
    assert list(zip(said["layer"], said["head"], strict=True)) == [MOVER, (0, 2), NEGATIVE]
    assert (said["is_here"], said["is_there"]) == ([1, 0, 1], [1, 1, 0])
    assert said["effect_there"] == [-1.0, 1.0, 0.0]
    here = path_patching(lm, prompts)
    known = torch.stack([here[:, 1, 0], here[:, 0, 2], here[:, 1, 1]], dim=1).double()
    torch.testing.assert_close(curves["effect_here"].values, known)


def test_behaviors_without_any_effect_name_no_head(lm: LanguageModel, prompts: Promptset) -> None:
    same = replace(prompts, corrupt=replace(prompts.clean, labels={}))
    curves = head_reuse(lm, same, Ranking(torch.zeros(3, 2, 4), is_elsewhere=True), probe_seed=0, share=0.25)
    assert bool(curves["layer"].values.isnan().all())
    assert curves["layer"].values.shape == (8, 1)


def test_a_curve_may_take_the_ranking_of_other_prompts(lm: LanguageModel, prompts: Promptset) -> None:
    ranking = Ranking(torch.rand(3, 2, 4), is_elsewhere=True)
    found = measure(probes.get("head_reuse"), {"shares": [0.25, 0.5]}, prompts, lm=lm, ranking=ranking)
    assert found["curve.n_there.values"][0].tolist() == [2.0, 4.0]
    with pytest.raises(BadInput, match="head_reuse needs the items of the probe that ranks its heads"):
        measure(probes.get("head_reuse"), {}, prompts, lm=lm)


def test_bad_input_is_refused(lm: LanguageModel, prompts: Promptset) -> None:
    ranking = Ranking(torch.rand(3, 2, 4), is_elsewhere=True)
    with pytest.raises(BadInput, match="stage is 'keys': choose one of logits, queries, values"):
        path_patching(lm, prompts, stage="keys")
    with pytest.raises(BadInput, match="share is 2"):
        path_patching(lm, prompts, share=2)
    with pytest.raises(BadInput, match=r"head_reuse\.shares is \[\]"):
        head_reuse(lm, prompts, ranking, probe_seed=0, shares=[])
    for probe in (lambda some: path_patching(lm, some), lambda some: head_reuse(lm, some, ranking, probe_seed=0)):
        with pytest.raises(NotApplicable, match="needs clean and corrupt prompts with answers and the label end"):
            probe(replace(prompts, corrupt=None))
    same = replace(prompts, corrupt=replace(prompts.clean, labels={}))
    with pytest.raises(NotApplicable, match="no head matters to the logits, so nothing leads there"):
        path_patching(lm, same, stage="queries")
