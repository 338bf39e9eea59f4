"""Phase changes of METHODS 16: does a score change abruptly over training, when, and within how many steps?

A logistic in log(step + 1) is compared by BIC with one segment. log(step + 1) and not log(step), so that step 0, the
model before training, counts as it was measured; the steps that are reported are steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from mneme.claims import Claim, Judgement, judge
from mneme.errors import BadInput

Array = NDArray[np.float64]
LEAST_STEPS = 6  # the logistic has four parameters and its noise: with fewer points anything fits
LEAST_RISE = 0.3
LEAST_BIC_GAIN = 10.0
LEAST_SEEDS = 5
_LEAST_NOISE = 1e-6  # standard deviation that every fit is granted: a perfect fit has no infinite BIC
_TENTH_TO_NINE_TENTHS = 2 * np.log(9)  # width of a logistic of scale 1 from 10% to 90%
_MIDDLES, _SCALES, _ZOOMS = 81, 24, 6


@dataclass(frozen=True)
class PhaseChange:
    """What one curve shows; steps are steps of training, not their logarithms.

    t50: step at half of the change; t50_low, t50_high: its interval; width: steps from 10% to 90% of the change; rise:
    change of the fitted curve from the first to the last step, negative for a fall; bic_gain: how much better the
    logistic is than the best single segment. t50, its interval and width are NaN where the verdict is "none".
    """

    t50: float
    t50_low: float
    t50_high: float
    width: float
    rise: float
    bic_gain: float
    n_steps: int
    verdict: Literal["phase change", "none"]


@dataclass(frozen=True)
class _Fit:
    """Logistic fits, one per curve [curve]: middle and scale in log(step + 1), the fitted ends, the squared error."""

    middle: Array
    scale: Array
    rise: Array
    error: Array


def phase_change(
    steps: ArrayLike,
    scores: ArrayLike,
    *,
    seed: int = 0,
    errors: ArrayLike | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> PhaseChange:
    """Whether a score jumps over training, and when.

    Shape: steps [step], whole numbers from 0, each once; scores [step] or [unit step], where units are seeds or
    prompts and their mean is fitted; errors [step] are standard errors of a single curve. The interval of t50 is a
    percentile bootstrap over units, or of normal draws around a single curve with its errors; NaN with neither. Where
    the whole change falls between two measured steps, the interval holds both: nothing is known in between.
    A step with a missing score is left out. "phase change" needs a change of more than 0.3 in either direction (a loss
    falls), a t50 between the first and the last step, and a BIC more than 10 below that of one segment. One segment is
    the best of a constant, a line in log(step + 1) and a line in the step. METHODS has no line in the step: it keeps
    steady growth, which bends upwards on a logarithmic axis, from passing for a jump.
    Raises: BadInput for shapes that do not fit, a step given twice or below 0, fewer than 6 measured steps.
    Source: METHODS 16; Olsson 2022 (arXiv:2209.11895) for the phase change itself.
    """
    at, table, noise = _checked(steps, scores, errors)
    x = np.log1p(at)
    curve = table.mean(axis=0)
    fit = _fit_logistic(x, curve[None])
    gain = _one_segment_bic(at, curve) - float(_bic(fit.error, len(at), 4)[0])
    rise = float(fit.rise[0])
    is_seen = x[0] < fit.middle[0] < x[-1]  # else half of the change lies outside of what was measured
    if not is_seen or abs(rise) <= LEAST_RISE or gain <= LEAST_BIC_GAIN:
        nan = float("nan")
        return PhaseChange(nan, nan, nan, nan, rise, gain, len(at), "none")
    curves = _resampled(table, noise, seed, n_resamples)
    low, high = (np.nan, np.nan) if curves is None else _interval(x, fit, _fit_logistic(x, curves), confidence)
    t50 = float(np.expm1(fit.middle[0]))
    half = _TENTH_TO_NINE_TENTHS / 2 * fit.scale[0]
    width = float(np.exp(fit.middle[0] + half) - np.exp(fit.middle[0] - half))
    return PhaseChange(t50, low, high, width, rise, gain, len(at), "phase change")


def order_of_t50(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Judgement:
    """Whether the first measure changes before the second, over seeds.

    Shape: first, second [seed] of t50, NaN where there was no phase change; seeds are paired. `found` is the mean of
    log(first) - log(second): below 0 means earlier. Holds where its whole 95% interval is; with fewer than 5 seeds
    that have both it cannot be tested.
    Source: METHODS 16 (bootstrap over at least 5 seeds).
    """
    one, two = np.log(np.asarray(first, dtype=np.float64)), np.log(np.asarray(second, dtype=np.float64))
    if one.shape != two.shape or one.ndim != 1:
        raise BadInput(f"t50 of two measures are compared seed by seed: {one.shape} and {two.shape} do not fit")
    found, control = ({str(index): float(value) for index, value in enumerate(each)} for each in (one, two))
    return judge(found, control, Claim("below", least_n=LEAST_SEEDS), seed=seed)


def _checked(steps: ArrayLike, scores: ArrayLike, errors: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """Steps in order, scores [unit step] and errors, without the steps that miss a score."""
    at, table = np.asarray(steps, dtype=np.float64), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    noise = None if errors is None else np.asarray(errors, dtype=np.float64)
    if at.ndim != 1 or table.ndim != 2 or table.shape[1] != len(at) or (noise is not None and noise.shape != at.shape):
        raise BadInput(f"a curve needs steps [step] and scores [step] or [unit step], not {at.shape} and {table.shape}")
    if (at < 0).any() or len(np.unique(at)) != len(at):
        raise BadInput("the steps of a curve are whole numbers from 0 on, each once")
    order = np.argsort(at)
    order = order[~np.isnan(table[:, order]).any(axis=0)]
    if len(order) < LEAST_STEPS:
        raise BadInput(f"a phase change needs {LEAST_STEPS} measured steps, and the curve has {len(order)}")
    return at[order], table[:, order], None if noise is None else noise[order]


def _resampled(table: Array, noise: Array | None, seed: int, n_resamples: int) -> Array | None:
    """Curves [resample step] as they might have come out; None where nothing says how much they vary."""
    rng = np.random.default_rng(seed)
    if len(table) > 1:
        times = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=n_resamples)
        return np.asarray(times @ table / len(table))
    if noise is None or np.isnan(noise).any():
        return None
    return np.asarray(table[0] + noise * rng.standard_normal((n_resamples, table.shape[1])))


def _interval(x: Array, fit: _Fit, resampled: _Fit, confidence: float) -> tuple[float, float]:
    """Percentiles of t50; the neighbouring steps as well where no measured step lies inside the change."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled.middle, [tail, 1 - tail])
    half = _TENTH_TO_NINE_TENTHS / 2 * fit.scale[0]
    if not (np.abs(x - fit.middle[0]) < half).any():
        low = min(low, x[x <= fit.middle[0]].max())
        high = max(high, x[x >= fit.middle[0]].min())
    return float(np.expm1(low)), float(np.expm1(high))


def _fit_logistic(x: Array, curves: Array) -> _Fit:
    """Least squares of floor + height * sigmoid((x - middle) / scale) to each curve [curve step].

    For a given middle and scale the other two parameters are linear, so only those two are searched: on a grid that
    all curves share, then on ever finer ones around each curve's best. There is no start to choose, so no bad start.
    """
    span, gap = x[-1] - x[0], np.diff(x).min()
    middles = np.linspace(x[0], x[-1], _MIDDLES)
    scales = np.geomspace(gap / 8, span, _SCALES)
    grid = np.stack([each.reshape(-1) for each in np.meshgrid(middles, scales, indexing="ij")])
    shapes = _centred_shapes(x, grid)  # [cell step]
    centred = curves - curves.mean(axis=1, keepdims=True)
    best = grid[:, ((centred @ shapes.T) ** 2).argmax(axis=1)]  # [2 curve]
    step_middle, step_scale = middles[1] - middles[0], scales[1] / scales[0]
    for zoom in range(_ZOOMS):
        reach = np.linspace(-1, 1, 9) / 3**zoom
        around = np.stack(
            [
                np.clip(best[0][:, None, None] + step_middle * reach[:, None], x[0], x[-1]) + 0 * reach,
                np.clip(best[1][:, None, None] * step_scale**reach, gap / 8, span) + 0 * reach[:, None],
            ]
        ).reshape(2, len(curves), -1)  # [2 curve cell]
        explained = np.einsum("ns,ncs->nc", centred, _centred_shapes(x, around)) ** 2
        best = np.take_along_axis(around, explained.argmax(axis=1)[None, :, None], axis=2)[:, :, 0]
    shape = _centred_shapes(x, best)
    height = (centred * shape).sum(axis=1)
    error = ((centred - height[:, None] * shape) ** 2).sum(axis=1)
    return _Fit(best[0], best[1], height * (shape[:, -1] - shape[:, 0]), error)


def _centred_shapes(x: Array, cells: Array) -> Array:
    """Sigmoids [... step] with mean 0 and norm 1: the dot product with a centred curve is what one explains."""
    shapes = expit((x - cells[0][..., None]) / cells[1][..., None])
    shapes = shapes - shapes.mean(axis=-1, keepdims=True)
    return np.asarray(shapes / np.linalg.norm(shapes, axis=-1, keepdims=True))


def _one_segment_bic(at: Array, curve: Array) -> float:
    """The least BIC of a constant, a line in log(step + 1) and a line in the step."""
    constant = ((curve - curve.mean()) ** 2).sum()
    found = [float(_bic(constant, len(at), 1))]
    for along in (np.log1p(at), at):
        design = np.stack([np.ones_like(along), along], axis=1)
        residual = curve - design @ np.linalg.lstsq(design, curve, rcond=None)[0]
        found.append(float(_bic((residual**2).sum(), len(at), 2)))
    return min(found)


def _bic(error: Array | float, n_steps: int, n_parameters: int) -> Array:
    """n log(error / n) + k log n, up to a constant that all fits of one curve share."""
    variance = np.maximum(np.asarray(error) / n_steps, _LEAST_NOISE**2)
    return np.asarray(n_steps * np.log(variance) + n_parameters * np.log(n_steps))
