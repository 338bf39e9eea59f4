"""A logistic is found again, a constant, a line and noise are none, and scipy finds the same logistic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from mneme.errors import BadInput
from mneme.phase_change import order_of_t50, phase_change

STEPS = np.array([0] + [2**power for power in range(15)])


def logistic(t50: float, scale: float = 0.5, floor: float = 0.1, height: float = 0.8) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return floor + height / (1 + np.exp(-(np.log(STEPS) - math.log(t50)) / scale))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, len(STEPS)))


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0])
def test_a_logistic_with_t50_1000_is_recovered_within_5_percent(scale: float) -> None:
    found = phase_change(STEPS, logistic(1000, scale))
    assert found.verdict == "phase change"
    assert found.t50 == pytest.approx(1000, rel=0.05)
    assert found.width == pytest.approx(1000 * (9**scale - 9**-scale), rel=0.05)
    assert found.rise == pytest.approx(0.8, abs=0.06)
    assert (found.n_steps, math.isnan(found.t50_low)) == (16, True)


@pytest.mark.parametrize(
    "curve",
    [np.full(16, 0.5), np.log1p(STEPS) / 10, STEPS / STEPS[-1], 1 - STEPS / STEPS[-1], (STEPS / STEPS[-1]) ** 2],
    ids=["constant", "line in log step", "line in step", "falling line", "half of it not seen"],
)
def test_a_curve_of_one_segment_is_no_phase_change(curve: np.ndarray) -> None:
    found = phase_change(STEPS, curve)
    assert found.verdict == "none"
    assert math.isnan(found.t50)
    assert math.isnan(found.width)


def test_noise_is_rarely_a_phase_change() -> None:
    verdicts = [phase_change(STEPS, each).verdict for each in noise(200)]
    sloped = [phase_change(STEPS, np.log1p(STEPS) / 10 + 0.05 * each).verdict for each in noise(200, seed=1)]
    assert verdicts.count("phase change") <= 2
    assert sloped.count("phase change") <= 2


def test_a_rise_of_less_than_three_tenths_is_none_however_sharp() -> None:
    assert phase_change(STEPS, logistic(1000, height=0.25)).verdict == "none"
    assert phase_change(STEPS, logistic(1000, height=0.35)).verdict == "phase change"


def test_a_loss_that_falls_has_a_negative_rise_and_the_same_t50() -> None:
    rising, falling = phase_change(STEPS, logistic(1000)), phase_change(STEPS, 5 - 2 * logistic(1000))
    assert falling.t50 == pytest.approx(rising.t50)
    assert falling.rise == pytest.approx(-2 * rising.rise)


@pytest.mark.parametrize("seed", range(5))
def test_scipy_finds_the_same_logistic(seed: int) -> None:
    def sigmoid(x: np.ndarray, floor: float, height: float, middle: float, scale: float) -> Any:
        return floor + height / (1 + np.exp(-(x - middle) / scale))

    draw = np.random.default_rng(seed)
    t50, scale = math.exp(draw.uniform(3, 8)), draw.uniform(0.3, 0.9)
    curve, x = logistic(t50, scale) + 0.02 * noise(seed=seed), np.log1p(STEPS)
    (_, _, middle, fitted), _ = curve_fit(sigmoid, x, curve, p0=[0.1, 0.8, math.log(t50), scale])
    found = phase_change(STEPS, curve)
    assert found.t50 == pytest.approx(math.expm1(middle), rel=1e-3)
    half = math.log(9) * fitted
    assert found.width == pytest.approx(math.exp(middle + half) - math.exp(middle - half), rel=1e-2)


def test_the_interval_over_seeds_holds_the_truth_about_as_often_as_it_says() -> None:
    draw, hits = np.random.default_rng(0), 0
    for seed in range(60):
        shifts = draw.normal(0, 0.4, size=10)
        curves = np.stack([logistic(1000 * math.exp(each)) for each in shifts]) + 0.02 * draw.normal(size=(10, 16))
        found = phase_change(STEPS, curves, seed=seed, n_resamples=200)
        hits += found.t50_low <= 1000 <= found.t50_high
    assert hits >= 48


def test_the_errors_of_one_curve_make_its_interval() -> None:
    curve = logistic(1000) + 0.02 * noise(seed=3)
    narrow, wide = (phase_change(STEPS, curve, errors=np.full(16, error)) for error in (0.01, 0.04))
    assert narrow.t50_low < narrow.t50 < narrow.t50_high
    assert wide.t50_high / wide.t50_low > narrow.t50_high / narrow.t50_low


def test_a_jump_between_two_steps_is_not_dated_more_finely_than_these() -> None:
    jump = np.where(STEPS < 1024, 0.0, 1.0)
    found = phase_change(STEPS, np.stack([jump, jump]))
    assert (found.t50_low, found.t50_high) == (pytest.approx(512), pytest.approx(1024))
    assert 512 < found.t50 < 1024


def test_a_step_without_a_score_is_left_out_and_the_order_of_steps_does_not_matter() -> None:
    curve = logistic(1000)
    with_hole = curve.copy()
    with_hole[3] = np.nan
    assert phase_change(STEPS, with_hole).n_steps == 15
    assert phase_change(STEPS[::-1], curve[::-1]).t50 == phase_change(STEPS, curve).t50


def test_what_changes_earlier_in_every_seed_is_earlier() -> None:
    first, second = [90.0, 110.0, 100.0, 95.0, 105.0], [900.0, 1200.0, 1000.0, 950.0, 1050.0]
    found = order_of_t50(first, second)
    assert found.verdict == "holds"
    assert found.difference == pytest.approx(np.mean(np.log(first) - np.log(second)))
    assert order_of_t50(second, first).verdict == "does not hold"
    assert order_of_t50(first, first[1:] + first[:1]).verdict == "does not hold"


def test_the_order_of_fewer_than_5_seeds_cannot_be_tested() -> None:
    found = order_of_t50([90.0, 110.0, 100.0, 95.0, math.nan], [900.0, 1200.0, 1000.0, 950.0, 1000.0])
    assert (found.verdict, found.n) == ("cannot be tested", 4)


@pytest.mark.parametrize(
    ("steps", "scores", "sentence"),
    [
        ([0, 1, 2, 4, 8], [0.0] * 5, "needs 6 measured steps, and the curve has 5"),
        ([0, 1, 2, 4, 8, 8], [0.0] * 6, "each once"),
        ([-1, 1, 2, 4, 8, 16], [0.0] * 6, "from 0 on"),
        ([0, 1, 2, 4, 8, 16], [0.0] * 5, r"not \(6,\) and \(1, 5\)"),
    ],
)
def test_curves_that_cannot_be_fitted_are_refused(steps: list[int], scores: list[float], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        phase_change(steps, scores)


def test_t50_of_different_seeds_are_not_compared() -> None:
    with pytest.raises(BadInput, match="seed by seed"):
        order_of_t50([1.0], [1.0, 2.0])
