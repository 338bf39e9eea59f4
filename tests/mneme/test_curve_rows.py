import math

import numpy as np
import pytest
import torch

from mneme.batch import Batch
from mneme.curve import Curve, CurveFacts, curves_to_arrays
from mneme.curve_rows import curve_tables, curves_by_condition, item_conditions
from mneme.intervals import mean_of
from mneme.probe import Probe, probes
from mneme.promptset import Promptset
from mneme.stats import bootstrap_mean, bootstrap_median, wilson
from mneme.summaries import summarise

NAN = math.nan
LENS = Probe(
    name="lens",
    module="here",
    measure=lambda: None,
    level="curve",
    unit="rank",
    low=1.0,
    high=None,
    site=None,
    source="here",
    curves={"rank": CurveFacts("layer", "rank", 1.0, None), "is_top": CurveFacts("k", "fraction", 0.0, 1.0)},
)
RANKS = torch.tensor([[9.0, 4.0, 1.0], [7.0, NAN, 1.0], [8.0, 2.0, 1.0], [NAN, NAN, NAN]])
RIGHT = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [NAN, NAN]])


def prompts(n_items, clusters=None, **conditions):
    batch = Batch.of(torch.ones(n_items, 4, dtype=torch.int64))
    named = {name: torch.tensor(values, dtype=torch.float64) for name, values in conditions.items()}
    return Promptset(batch, clusters=None if clusters is None else torch.tensor(clusters), conditions=named)


def lens_arrays():
    curves = {"rank": Curve(torch.arange(3.0, dtype=torch.float64), RANKS)}
    curves["is_top"] = Curve(torch.tensor([1.0, 4.0], dtype=torch.float64), RIGHT)
    return curves_to_arrays(curves)


def columns(rows, *names):
    return list(zip(*(rows[name] for name in names), strict=True))


def test_each_point_is_the_mean_of_the_prompts_that_were_measured_there():
    rows = curve_tables(LENS, lens_arrays(), None, 0)["curves"]
    assert columns(rows, "measure", "x_name", "x", "value", "n_items", "unit") == [
        ("rank", "layer", 0.0, 8.0, 3, "rank"),
        ("rank", "layer", 1.0, 3.0, 2, "rank"),
        ("rank", "layer", 2.0, 1.0, 3, "rank"),
        ("is_top", "k", 1.0, pytest.approx(1 / 3), 3, "fraction"),
        ("is_top", "k", 4.0, 1.0, 3, "fraction"),
    ]
    assert np.isnan(rows["n_clusters"]).all()


def test_right_and_wrong_get_wilsons_interval_and_all_else_the_bootstraps():
    rows = curve_tables(LENS, lens_arrays(), None, 5)["curves"]
    assert columns(rows, "ci_low", "ci_high")[3:] == [wilson(1, 3), wilson(3, 3)]
    whole = bootstrap_mean(RANKS.double().numpy(), seed=5)
    assert rows["ci_low"][:3] == whole.low.tolist()
    assert rows["ci_high"][:3] == whole.high.tolist()
    ones = Curve(torch.zeros(1, dtype=torch.float64), torch.ones(4, 1))  # ranks of 1 are no shares of right answers
    same = curve_tables(LENS, lens_arrays() | curves_to_arrays({"rank": ones}), None, 0)["curves"]
    assert columns(same, "ci_low", "ci_high")[0] == (1.0, 1.0)


def test_prompts_of_one_cluster_are_drawn_together():
    clusters = np.array([0, 0, 1, 2])
    rows = curve_tables(LENS, lens_arrays(), clusters, 0)["curves"]
    tied = bootstrap_mean(RIGHT.double().numpy(), seed=0, clusters=clusters)
    assert rows["ci_low"][3:] == tied.low.tolist()
    assert rows["n_clusters"] == [2, 2, 2, 2, 2]


def test_every_prompt_of_a_curve_is_kept_at_every_point():
    items = curve_tables(LENS, lens_arrays(), None, 0)["curve_items"]
    found = {each[:-1]: each[-1] for each in columns(items, "measure", "x_name", "x", "item", "value")}
    assert len(found) == 4 * 3 + 4 * 2
    assert found["rank", "layer", 1.0, 2] == 2.0
    assert math.isnan(found["rank", "layer", 1.0, 1])
    assert found["is_top", "k", 4.0, 0] == 1.0


def test_a_point_that_no_prompt_reached_is_missing_with_n_0():
    nowhere = curves_to_arrays({"rank": Curve(torch.zeros(1, dtype=torch.float64), torch.full((4, 1), NAN))})
    rows = curve_tables(LENS, lens_arrays() | nowhere, None, 0)["curves"]
    assert math.isnan(rows["value"][0])
    assert math.isnan(rows["ci_low"][0])
    assert rows["n_items"][0] == 0


def test_a_behavior_is_told_apart_by_each_condition():
    asked = prompts(6, depth=[0, 0, 0.5, 0.5, 1, NAN], is_present=[1, 1, 1, 0, 0, 0])
    values = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    rows = curves_by_condition(probes.get("answer_accuracy"), values, asked, None, 0)
    names = ("measure", "x_name", "x", "value", "n_items")
    assert [tuple(each[name] for name in names) for each in rows] == [
        ("answer_accuracy", "depth", 0.0, 1.0, 2),
        ("answer_accuracy", "depth", 0.5, 0.5, 2),
        ("answer_accuracy", "depth", 1.0, 0.0, 1),
        ("answer_accuracy", "is_present", 0.0, pytest.approx(1 / 3), 3),
        ("answer_accuracy", "is_present", 1.0, 1.0, 3),
    ]
    assert {each["unit"] for each in rows} == {probes.get("answer_accuracy").unit}
    assert (rows[0]["ci_low"], rows[0]["ci_high"]) == wilson(2, 2)
    losses = curves_by_condition(probes.get("copy_loss"), values, asked, None, 0)
    assert (losses[0]["ci_low"], losses[0]["ci_high"]) == (1.0, 1.0)


def test_a_constant_and_a_measurement_are_no_axis():
    values = np.ones(65)
    for places, n_points in (([3.0] * 65, 0), ([*range(65)], 0), ([*range(64), 0], 64)):
        rows = curves_by_condition(probes.get("copy_loss"), values, prompts(65, length=places), None, 0)
        assert len(rows) == n_points


def test_a_median_stands_beside_its_mean_along_a_condition():
    values = np.array([1.0, 2.0, 9.0, 4.0, 5.0])
    asked = prompts(5, n_nouns=[3, 3, 3, 5, 5])
    rows = curves_by_condition(probes.get("repeat_surprisal"), values, asked, None, 0)
    found = {(each["measure"], each["x"]): each for each in rows}
    assert found["repeat_surprisal", 3.0]["value"] == 2.0
    assert found["repeat_surprisal_mean", 3.0]["value"] == 4.0
    assert found["repeat_surprisal", 5.0]["value"] == 4.5
    assert found["repeat_surprisal", 3.0]["ci_high"] == float(bootstrap_median(values[:3], seed=0).high)


def test_a_condition_that_says_what_the_clusters_say_leaves_prompts_on_their_own_at_each_value():
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    asked = prompts(6, clusters=[0, 0, 0, 1, 1, 1], depth=[0, 0, 0, 1, 1, 1], place=[0, 1, 0, 1, 0, 1])
    clusters = asked.clusters.numpy()
    rows = curves_by_condition(probes.get("answer_accuracy"), values, asked, clusters, 0)
    first, _, crossed, _ = rows
    assert (first["ci_low"], first["ci_high"]) == wilson(2, 3)
    assert math.isnan(first["n_clusters"])
    tied = mean_of(np.array([1.0, NAN, 1.0, NAN, 0.0, NAN]), clusters, 0)
    assert (crossed["ci_low"], crossed["ci_high"]) == (float(tied.low), float(tied.high))
    assert crossed["n_clusters"] == 2


def test_conditions_are_delivered_with_every_trial_that_looks_at_prompts():
    asked = prompts(2, depth=[0.25, NAN], length=[64, 128])
    rows = item_conditions(asked)
    assert columns(rows, "item", "condition")[2:] == [(0, "length"), (1, "length")]
    np.testing.assert_array_equal(rows["value"], [0.25, NAN, 64, 128])
    scores = {"scores": torch.rand(2, 1, 2)}
    assert "item_conditions" in summarise(probes.get("induction"), scores, asked, {}, 0)
    assert "item_conditions" not in summarise(probes.get("induction"), scores, prompts(2), {}, 0)
    assert "item_conditions" not in summarise(probes.get("copying_score"), {"scores": torch.rand(1, 2)}, asked, {}, 0)


def test_a_trial_of_curves_delivers_curves_and_a_behavior_only_where_there_is_a_condition():
    tables = summarise(LENS, lens_arrays(), prompts(4, depth=[0, 0, 1, 1]), {}, 0)
    assert list(tables) == ["curves", "curve_items", "item_conditions"]
    values = {"values": torch.tensor([1.0, 2.0])}
    assert "curves" not in summarise(probes.get("copy_loss"), values, prompts(2), {}, 0)
    assert len(summarise(probes.get("copy_loss"), values, prompts(2, depth=[0, 1]), {}, 0)["curves"]) == 2
