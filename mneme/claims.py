"""Claims: a number of each unit, beside a control or zero, and whether the difference is what was expected.

Units are what is resampled: prompts, seeds, models. Nothing here knows where the numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mneme.errors import BadInput
from mneme.stats import RESAMPLES, bootstrap_mean

Expected = Literal["above", "below", "within"]
Verdict = Literal["holds", "does not hold", "cannot be tested"]
LEAST_N = 5
_DRAWS_AT_ONCE = 4_000_000
_ROUNDING = 1e-12  # of the largest value: far above what float64 sums leave, far below what float32 models tell apart


@dataclass(frozen=True)
class Claim:
    """What is expected of the difference d = found - control (found alone where there is no control).

    above: d > margin; below: d < -margin; within: -margin < d < margin. `margin` has the unit of the values and is not
    negative; `level` is the confidence; fewer than `least_n` units test nothing.
    """

    expected: Expected
    margin: float = 0.0
    level: float = 0.95
    least_n: int = LEAST_N


@dataclass(frozen=True)
class Judgement:
    """What became of a claim, in the unit of the values; NaN = not known.

    found, control: means over the units that entered; difference: found - control, or found where there is no control;
    ci_low, ci_high: interval of the difference; n: units that entered, the smaller number of the two sides where they
    are not paired; reason: why it does not hold or cannot be tested, in one sentence.
    """

    found: float
    control: float
    difference: float
    ci_low: float
    ci_high: float
    n: int
    verdict: Verdict
    reason: str | None


def judge(found: Mapping[str, float], control: Mapping[str, float] | None, claim: Claim, *, seed: int) -> Judgement:
    """Bootstrap the mean difference over units and say whether the claim holds.

    `found` and `control` map a unit to its value; NaN values leave. Units that both name are paired, and then the
    others are left out; where they share none, both sides are resampled apart. The interval is the percentile
    interval of METHODS 4. "above" and "below" hold where the whole interval at `level` lies beyond the margin;
    "within" holds where the interval at 2 * level - 1 lies inside it, which is two one-sided tests at 1 - level each
    (TOST; Schuirmann 1987): that no difference was found is no equivalence. With fewer than `least_n` units the claim
    cannot be tested; of as few as 5, percentile intervals are too narrow: a claim that barely holds there is weak.
    The difference and its ends count as 0, or as the margin, where they differ from it by no more than rounding (1e-12
    of the largest value): sums of equal rates leave ends like -1e-17, which say nothing about a claim.
    Raises: BadInput for a margin that is negative, or zero where "within" is expected; a level outside (0.5, 1).
    """
    _refuse_odd(claim)
    one, two = _present(found), None if control is None else _present(control)
    shared = sorted(one.keys() & two.keys()) if two else []
    if shared and two:
        one, two = ({unit: side[unit] for unit in shared} for side in (one, two))
    n = len(one) if two is None else min(len(one), len(two))
    means = (_mean(one), float("nan") if two is None else _mean(two))
    if n < max(claim.least_n, 2):
        nan = float("nan")
        return Judgement(*means, nan, nan, nan, n, "cannot be tested", _too_few(one, two, bool(shared), claim))
    confidence = 2 * claim.level - 1 if claim.expected == "within" else claim.level
    if two is None or shared:
        differences = _values(one) - (_values(two) if two else 0.0)
        interval = bootstrap_mean(differences, seed=seed, confidence=confidence)
        estimate, low, high = (float(each) for each in (interval.estimate, interval.low, interval.high))
    else:
        estimate, low, high = _apart(_values(one), _values(two), seed, confidence)
    rounding = _ROUNDING * max(abs(value) for side in (one, two or {}) for value in side.values())
    estimate, low, high = (_without_rounding(each, claim.margin, rounding) for each in (estimate, low, high))
    reason = _against(low, high, claim)
    return Judgement(*means, estimate, low, high, n, "does not hold" if reason else "holds", reason)


def _refuse_odd(claim: Claim) -> None:
    if not (math.isfinite(claim.margin) and claim.margin >= 0) or (claim.expected == "within" and claim.margin == 0):
        raise BadInput(f"the margin of a claim is a number above 0 (or 0 for above and below), not {claim.margin}")
    if not 0.5 < claim.level < 1:
        raise BadInput(f"the level of a claim lies between 0.5 and 1, not at {claim.level}")


def _present(values: Mapping[str, float]) -> dict[str, float]:
    return {unit: float(value) for unit, value in values.items() if math.isfinite(value)}


def _values(units: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([units[unit] for unit in sorted(units)])


def _mean(units: Mapping[str, float]) -> float:
    return float(_values(units).mean()) if units else float("nan")


def _too_few(one: Mapping[str, float], two: Mapping[str, float] | None, is_paired: bool, claim: Claim) -> str:
    asked = f"the claim asks for at least {max(claim.least_n, 2)}"
    if is_paired:
        return f"units with both a value and a control: {len(one)}; {asked}"
    control = "" if two is None else f", of the control: {len(two)}"
    return f"units with a value: {len(one)}{control}; {asked}"


def _apart(
    one: NDArray[np.float64], two: NDArray[np.float64], seed: int, confidence: float
) -> tuple[float, float, float]:
    """Difference of two means, each side resampled on its own, with its percentile interval."""
    rng = np.random.default_rng(seed)
    differences = _resampled_means(one, rng) - _resampled_means(two, rng)
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(one.mean() - two.mean()), float(low), float(high)


def _resampled_means(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    means = np.empty(RESAMPLES)
    block = max(1, _DRAWS_AT_ONCE // len(values))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        means[start : start + size] = values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1)
    return means


def _without_rounding(number: float, margin: float, rounding: float) -> float:
    """The number; 0 or the margin itself where it is nearer to one of them than rounding."""
    return next((mark for mark in (0.0, margin, -margin) if abs(number - mark) <= rounding), number)


def _against(low: float, high: float, claim: Claim) -> str | None:
    """Why the interval does not carry the claim; None where it does."""
    wanted = {"above": (claim.margin, math.inf), "below": (-math.inf, -claim.margin)}
    least, most = wanted.get(claim.expected, (-claim.margin, claim.margin))
    if low > least and high < most:
        return None
    shown = f"the interval [{low:.3g}, {high:.3g}]"
    if high <= least or low >= most:
        return f"{shown} contradicts it: {_said(claim)} was expected"
    return f"{shown} leaves it open: {_said(claim)} was expected"


def _said(claim: Claim) -> str:
    if claim.expected == "within":
        return f"a difference within ±{claim.margin:.3g}"
    if claim.expected == "above":
        return f"a difference above {claim.margin:.3g}"
    return f"a difference below {0 - claim.margin:.3g}"
