import numpy as np
import pytest
import torch

from mneme.batch import Batch
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.stats import bootstrap_mean, wilson
from mneme.summaries import summarise


def prompts(n_items, **more):
    return Promptset(Batch.of(torch.ones(n_items, 4, dtype=torch.int64)), **more)


def head_items(n_items=12):
    return torch.rand(n_items, 2, 8, generator=torch.Generator().manual_seed(0))


def test_head_scores_are_means_with_intervals_and_n():
    scores = head_items()
    rows = summarise(probes.get("induction"), {"scores": scores}, prompts(12), {}, 0)["head_scores"]
    assert rows["score"].tolist() == pytest.approx(scores.mean(0).reshape(-1).tolist(), abs=1e-6)
    assert (rows["ci_low"] < rows["score"]).all()
    assert (rows["score"] < rows["ci_high"]).all()
    assert rows["n_items"].tolist() == [12] * 16
    assert list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))[9] == (1, 1)


def test_every_item_is_kept():
    scores = head_items()
    rows = summarise(probes.get("induction"), {"scores": scores}, prompts(12), {}, 0)["item_scores"]
    at = (rows["item"] == 7) & (rows["layer"] == 1) & (rows["head"] == 5)
    assert rows["value"][at].tolist() == [pytest.approx(float(scores[7, 1, 5]))]
    assert len(rows["value"]) == scores.numel()


def test_a_head_that_was_not_measured_stays_missing():
    scores = head_items()
    scores[:, 0, 3] = torch.nan
    rows = summarise(probes.get("induction"), {"scores": scores}, prompts(12), {}, 0)["head_scores"]
    assert np.isnan(rows["score"][3])
    assert np.isnan(rows["ci_low"][3])
    assert rows["n_items"][3] == 0


def test_one_prompt_gives_a_mean_without_interval_or_reliability():
    tables = summarise(probes.get("induction"), {"scores": head_items(1)}, prompts(1), {}, 0)
    assert np.isnan(tables["head_scores"]["ci_low"]).all()
    assert not np.isnan(tables["head_scores"]["score"]).any()
    assert np.isnan(tables["reliability"][0]["split_half"])


def test_behavior_carries_its_chance_and_clusters_widen_it():
    values = torch.rand(12, generator=torch.Generator().manual_seed(0))
    facts = {"chance": {"copy_accuracy": 0.01}}
    probe = probes.get("copy_accuracy")
    (row,) = summarise(probe, {"values": values}, prompts(12, facts=facts), {}, 0)["behavior"]
    assert row["value"] == pytest.approx(float(values.mean()))
    assert row["chance"] == 0.01
    assert row["is_accuracy"]
    clusters = torch.arange(12) // 3
    (clustered,) = summarise(probe, {"values": values}, prompts(12, clusters=clusters), {}, 0)["behavior"]
    expected = bootstrap_mean(values.double().numpy(), seed=0, clusters=clusters.numpy())
    assert clustered["ci_low"] == float(expected.low)
    assert np.isnan(clustered["chance"])


def test_every_interval_says_how_many_clusters_entered_and_nothing_where_prompts_are_not_clustered():
    clusters = torch.arange(12) // 3
    scores = head_items()
    scores[:3, 0, 1], scores[:, 0, 3] = torch.nan, torch.nan
    intervention = intervention_items()
    intervention["set_effects"][:6] = torch.nan
    for given, expected in ((clusters, [4.0, 3.0, 4.0, np.nan]), (None, [np.nan] * 4)):
        asked = prompts(12, clusters=given)
        rows = summarise(probes.get("induction"), {"scores": scores}, asked, {}, 0)["head_scores"]
        np.testing.assert_array_equal(rows["n_clusters"][:4], expected)
        first = expected[:1]
        (row,) = summarise(probes.get("copy_loss"), {"values": scores[:, 0, 0]}, asked, {}, 0)["behavior"]
        np.testing.assert_array_equal([row["n_clusters"]], first)
        tables = summarise(probes.get("head_ablation"), intervention, asked, {}, 0)
        np.testing.assert_array_equal(tables["head_effects"]["n_clusters"], first * 16)
        half = [first[0] / 2] * 2
        np.testing.assert_array_equal([row["n_clusters"] for row in tables["controls"]], half)


def test_right_or_wrong_answers_get_wilsons_interval():
    values = torch.tensor([1.0] * 9 + [0.0] * 3)
    (row,) = summarise(probes.get("answer_accuracy"), {"values": values}, prompts(12), {}, 0)["behavior"]
    assert (row["ci_low"], row["ci_high"]) == wilson(9, 12)


def intervention_items(n_items=12):
    generator = torch.Generator().manual_seed(0)
    half = torch.arange(n_items) % 2 == 0
    set_effects = 1 + torch.rand(n_items, 2, generator=generator)
    control_effects = torch.rand(n_items, 2, 3, generator=generator)
    set_effects[half], control_effects[half] = torch.nan, torch.nan
    control_effects[:, 1] = torch.nan
    return {
        "clean": torch.rand(n_items, generator=generator),
        "effects": torch.rand(n_items, 2, 8, generator=generator),
        "k": torch.tensor([1, 8]),
        "set_effects": set_effects,
        "control_effects": control_effects,
        "n_draws": torch.tensor([3, 0]),
        "n_distinct": torch.tensor([3, 0]),
    }


def test_a_set_stands_beside_its_controls_with_the_smallest_p_that_they_allow():
    items = intervention_items()
    tables = summarise(probes.get("head_ablation"), items, prompts(12), {"kind": "zero"}, 0)
    first, second = tables["controls"]
    assert first["n_items"] == 6
    assert first["p_value"] == 0.25
    assert first["value"] > first["control_high"] >= first["control_mean"] >= first["control_low"]
    null = items["control_effects"][1::2, 0].mean(dim=0)
    assert first["control_mean"] == pytest.approx(float(null.mean()), abs=1e-6)
    assert second["n_draws"] == second["n_distinct"] == 0
    assert np.isnan([second["control_mean"], second["control_low"], second["p_value"]]).all()
    assert not np.isnan(second["value"])


def test_effects_are_named_by_their_intervention():
    rows = summarise(probes.get("head_ablation"), intervention_items(), prompts(12), {"kind": "zero"}, 0)
    assert set(rows["head_effects"]["intervention"]) == {"zero_ablation"}
    assert set(rows["head_effects"]["position_label"]) == {None}
    assert rows["reliability"][0]["n_items"] == 12


def test_the_same_items_and_seed_give_the_same_rows():
    items = {"scores": head_items()}
    first, again = (summarise(probes.get("induction"), items, prompts(12), {}, 5)["head_scores"] for _ in range(2))
    np.testing.assert_array_equal(first["ci_low"], again["ci_low"])


def test_a_patch_has_effects_and_the_gap_they_are_a_share_of_but_no_controls():
    generator = torch.Generator().manual_seed(0)
    items = {
        "effects": torch.rand(12, 2, 8, generator=generator),
        "gap": 2 + torch.rand(12, generator=generator),
        "normalised": torch.rand(2, 8, generator=generator),
    }
    tables = summarise(probes.get("head_patching"), items, prompts(12), {"position": "end"}, 0)
    assert sorted(tables) == ["behavior", "head_effects", "item_scores", "reliability"]
    assert set(tables["head_effects"]["intervention"]) == {"patch_denoise"}
    assert set(tables["head_effects"]["position_label"]) == {"end"}
    (row,) = tables["behavior"]
    assert row["readout"] == "logit_difference_clean_minus_corrupt"
    assert row["value"] == pytest.approx(float(items["gap"].mean()))
    assert row["ci_low"] < row["value"] < row["ci_high"]
    effects = tables["head_effects"]
    ratio = items["effects"].double().mean(dim=0).reshape(-1) / items["gap"].double().mean()
    np.testing.assert_allclose(effects["normalised_effect"], ratio, rtol=1e-12)
    assert (effects["normalised_low"] < effects["normalised_effect"]).all()
    assert (effects["normalised_effect"] < effects["normalised_high"]).all()
    noise = summarise(probes.get("head_patching"), items, prompts(12), {"direction": "noise"}, 0)["head_effects"]
    assert set(noise["intervention"]) == {"patch_noise"}
    assert set(noise["position_label"]) == {None}


def patched(effects, gap, **more):
    items = {"effects": effects, "gap": gap}
    tables = summarise(probes.get("head_patching"), items, prompts(len(gap), **more), {}, 0)
    rows = tables["head_effects"]
    return {name: rows[f"normalised_{name}"] for name in ("effect", "low", "high")}


def test_a_head_that_carries_half_of_every_gap_carries_half_with_no_doubt():
    gap = 1 + torch.arange(12.0)  # the gaps differ widely: bootstrapped apart, their ratio would be uncertain
    found = patched(torch.stack([gap / 2, gap, -gap, 0 * gap], dim=1)[:, None], gap)
    for column in found.values():
        np.testing.assert_allclose(column, [0.5, 1, -1, 0], atol=1e-12)


def test_the_normalised_interval_is_that_of_ratios_of_resampled_means():
    generator = torch.Generator().manual_seed(1)
    gap = 1 + torch.rand(40, generator=generator, dtype=torch.float64)
    effects = gap[:, None, None] * torch.rand(40, 1, 1, generator=generator, dtype=torch.float64)
    found = patched(effects, gap)
    draws = np.random.default_rng(5).integers(0, 40, size=(20_000, 40))
    ratios = effects[:, 0, 0].numpy()[draws].mean(axis=1) / gap.numpy()[draws].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert (float(found["low"][0]), float(found["high"][0])) == pytest.approx((low, high), abs=0.01)
    clustered = patched(effects, gap, clusters=torch.arange(40) // 10)
    assert float(clustered["effect"][0]) == float(found["effect"][0])
    assert float(clustered["low"][0]) != float(found["low"][0])


def test_nothing_is_a_share_of_a_gap_that_may_be_zero_or_is_not_there():
    effects = torch.rand(12, 2, 8, generator=torch.Generator().manual_seed(0))
    doubtful = torch.tensor([3.0, -2.0] * 6)
    assert all(np.isnan(column).all() for column in patched(effects, doubtful).values())
    rows = summarise(probes.get("head_ablation"), intervention_items(), prompts(12), {}, 0)["head_effects"]
    assert np.isnan([rows["normalised_effect"], rows["normalised_low"], rows["normalised_high"]]).all()


def test_an_effect_may_be_a_share_of_a_whole_of_its_own_head():
    whole = torch.stack([1 + torch.arange(12.0), torch.tensor([-1.0, 1.0] * 6), torch.full((12,), torch.nan)], dim=1)
    items = {"effects": (whole * torch.tensor([0.25, 1.0, 1.0]))[:, None], "whole": whole[:, None]}
    tables = summarise(probes.get("self_repair"), items, prompts(12), {}, 0)
    rows = tables["head_effects"]
    for name in ("normalised_effect", "normalised_low", "normalised_high"):
        assert rows[name][0] == pytest.approx(0.25)
        assert np.isnan(rows[name][1:]).all()  # a whole that may be 0, and one that was not measured
    assert rows["intervention"] == ["self_repair_free"] * 3
    assert "behavior" not in tables


def test_a_gap_that_some_resamples_lose_gives_a_share_without_interval():
    gap = torch.tensor([1.0, 1.0, 1.0, 1.0, -0.9, 1.0])  # its interval lies above 0, but not all resamples do
    found = patched(torch.ones(6, 1, 1), gap)
    assert float(found["effect"][0]) == pytest.approx(6 / 4.1)
    assert np.isnan([found["low"][0], found["high"][0]]).all()


def test_scores_of_the_weights_have_neither_interval_nor_n_nor_items():
    scores = torch.tensor([[0.5, torch.nan], [-1.0, 0.0]])
    tables = summarise(probes.get("copying_score"), {"scores": scores}, prompts(12), {}, 0)
    assert list(tables) == ["head_scores"]
    rows = tables["head_scores"]
    np.testing.assert_array_equal(rows["score"], [0.5, np.nan, -1, 0])
    assert rows["layer"].tolist() == [0, 0, 1, 1]
    for missing in ("ci_low", "ci_high", "n_items", "n_clusters"):
        assert np.isnan(rows[missing]).all()
