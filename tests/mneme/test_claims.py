"""Claims hold where the whole interval says so, and cannot be tested where there is too little to test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mneme.claims import Claim, judge
from mneme.errors import BadInput


def units(values: object) -> dict[str, float]:
    return {f"u{index:04d}": float(value) for index, value in enumerate(np.asarray(values))}


def sample(mean: float, n: int = 40, sd: float = 0.1, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed).normal(size=n)
    return mean + sd * (draws - draws.mean()) / draws.std()


def test_values_above_zero_hold_below_zero_contradict_and_around_zero_leave_it_open() -> None:
    verdicts = [judge(units(sample(mean)), None, Claim("above"), seed=0) for mean in (0.5, -0.5, 0.001)]
    assert [each.verdict for each in verdicts] == ["holds", "does not hold", "does not hold"]
    assert verdicts[0].reason is None
    assert "contradicts it: a difference above 0 was expected" in str(verdicts[1].reason)
    assert "leaves it open" in str(verdicts[2].reason)
    assert verdicts[0].found == verdicts[0].difference == pytest.approx(0.5)
    assert math.isnan(verdicts[0].control)


def test_the_margin_must_be_passed_by_the_whole_interval() -> None:
    values = units(sample(0.5))  # standard error 0.016
    assert judge(values, None, Claim("above", margin=0.45), seed=0).verdict == "holds"
    assert judge(values, None, Claim("above", margin=0.49), seed=0).verdict == "does not hold"


def test_below_is_above_with_the_sign_turned() -> None:
    values = sample(-0.5)
    below = judge(units(values), None, Claim("below", margin=0.45), seed=0)
    above = judge(units(-values), None, Claim("above", margin=0.45), seed=0)
    assert below.verdict == above.verdict == "holds"
    assert (below.ci_low, below.ci_high) == pytest.approx((-above.ci_high, -above.ci_low))


def test_units_that_both_sides_name_are_paired() -> None:
    base = sample(0.0, sd=5.0)
    found, control = units(base + sample(0.2, seed=1)), units(base)
    paired = judge(found, control, Claim("above"), seed=0)
    apart = judge(found, {f"other {unit}": value for unit, value in control.items()}, Claim("above"), seed=0)
    assert (paired.verdict, apart.verdict) == ("holds", "does not hold")
    assert paired.difference == pytest.approx(apart.difference) == pytest.approx(0.2)
    assert (paired.found, paired.control) == pytest.approx((apart.found, apart.control))


def test_of_units_that_are_partly_shared_the_shared_ones_are_compared() -> None:
    found, control = units([1.0] * 8 + [99.0] * 4), units([0.5] * 8)
    judged = judge(found, control, Claim("above"), seed=0)
    assert (judged.n, judged.found, judged.control, judged.difference) == (8, 1.0, 0.5, 0.5)


def test_scipy_finds_the_same_interval_of_two_unpaired_sides() -> None:
    one, two = np.random.default_rng(1).exponential(size=60), np.random.default_rng(2).exponential(size=45)
    ours = judge(units(one), {f"c{name}": value for name, value in units(two).items()}, Claim("above"), seed=0)
    theirs = scipy_stats.bootstrap(
        (one, two),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.ci_low - theirs.low) < 0.05 * width
    assert abs(ours.ci_high - theirs.high) < 0.05 * width


def test_within_is_two_one_sided_tests() -> None:
    values = sample(0.0)
    judged = judge(units(values), None, Claim("within", margin=0.05), seed=0)
    at = scipy_stats.norm.ppf(0.95) * 0.1 / math.sqrt(40)
    assert judged.verdict == "holds"
    assert (judged.ci_low, judged.ci_high) == (pytest.approx(-at, rel=0.1), pytest.approx(at, rel=0.1))


def test_no_difference_found_is_no_equivalence() -> None:
    judged = judge(units(sample(0.0, n=8, sd=1.0)), None, Claim("within", margin=0.05), seed=0)
    assert judged.verdict == "does not hold"
    assert "leaves it open: a difference within ±0.05 was expected" in str(judged.reason)


def test_a_difference_outside_the_margin_contradicts_equivalence() -> None:
    judged = judge(units(sample(0.5)), None, Claim("within", margin=0.1), seed=0)
    assert "contradicts it" in str(judged.reason)


@pytest.mark.parametrize(
    ("found", "control", "sentence"),
    [
        ([], None, "units with a value: 0; the claim asks for at least 5"),
        ([1.0, 1.0, math.nan, 1.0, 1.0], None, "units with a value: 4; the claim asks for at least 5"),
        ([1.0] * 9, [], "units with a value: 9, of the control: 0; the claim asks for at least 5"),
        ([1.0] * 9, [1.0] * 3, "units with both a value and a control: 3; the claim asks for at least 5"),
    ],
)
def test_too_few_units_test_nothing(found: list[float], control: list[float] | None, sentence: str) -> None:
    judged = judge(units(found), None if control is None else units(control), Claim("above"), seed=0)
    assert (judged.verdict, judged.reason) == ("cannot be tested", sentence)
    assert math.isnan(judged.difference)
    assert math.isnan(judged.ci_low)


def test_one_unit_is_never_enough() -> None:
    assert judge({"a": 1.0}, None, Claim("above", least_n=1), seed=0).verdict == "cannot be tested"


def test_the_same_seed_gives_the_same_digits() -> None:
    first, again = (judge(units(sample(0.1)), None, Claim("above"), seed=3) for _ in range(2))
    assert (first.ci_low, first.ci_high) == (again.ci_low, again.ci_high)


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (Claim("above", margin=-0.1), "margin"),
        (Claim("above", margin=math.nan), "margin"),
        (Claim("within"), "margin"),
        (Claim("above", level=0.5), "level"),
        (Claim("above", level=1.0), "level"),
    ],
)
def test_odd_margins_and_levels_are_refused(claim: Claim, sentence: str) -> None:
    with pytest.raises(BadInput, match=f"the {sentence} of a claim"):
        judge(units([1.0] * 9), None, claim, seed=0)


def test_rates_that_are_equal_up_to_rounding_differ_by_exactly_nothing() -> None:
    found, control = units([0.1 + 0.2] * 5), units([0.3] * 5)  # 0.30000000000000004 and 0.3
    for other in (control, {f"c{name}": value for name, value in control.items()}):
        judged = judge(found, other, Claim("above"), seed=0)
        assert (judged.difference, judged.ci_low, judged.ci_high) == (0.0, 0.0, 0.0)
        assert judged.verdict == "does not hold"
    assert judge(found, control, Claim("within", margin=0.01), seed=0).verdict == "holds"


def test_a_difference_that_is_the_margin_up_to_rounding_is_not_beyond_it() -> None:
    judged = judge(units([0.1 + 0.2] * 5), None, Claim("above", margin=0.3), seed=0)
    assert (judged.ci_low, judged.verdict) == (0.3, "does not hold")
    assert judge(units([-0.1 - 0.2] * 5), None, Claim("below", margin=0.3), seed=0).ci_high == -0.3


def test_small_numbers_that_are_no_rounding_stay_as_they_are() -> None:
    judged = judge(units([1e-9] * 5), None, Claim("above"), seed=0)
    assert (judged.ci_low, judged.verdict) == (1e-9, "holds")
    beside_large = judge(units([1.0 + 1e-9] * 5), units([1.0] * 5), Claim("above"), seed=0)
    assert (beside_large.difference, beside_large.verdict) == (pytest.approx(1e-9, rel=1e-6), "holds")
