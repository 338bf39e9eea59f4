"""Linear readouts: logistic regression with an L2 penalty on states, judged on prompts it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mneme.errors import NotApplicable

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_INNER_FOLDS = 3
_MOST_STEPS = 100
_FLATTEST = 1e-6  # of the gradient of one prompt


@dataclass(frozen=True)
class Prepared:
    """How features enter a readout, learnt on the prompts it is fitted to: standardised, then turned to main axes.

    Shape: mean, scale [width]; axes [width component].
    """

    mean: Array
    scale: Array
    axes: Array

    @classmethod
    def on(cls, features: Array, most: int) -> Prepared:
        """Fitted to features [item width]; the `most` main axes are kept, all of them where there are no more.

        Turning alone changes nothing for an L2 penalty. Features without spread become 0.
        """
        mean, spread = features.mean(axis=0), features.std(axis=0)
        scale = np.where(spread > 1e-9 * max(1e-30, float(spread.max())), spread, np.inf)
        standard = (features - mean) / scale
        if len(features) < features.shape[1]:  # the smaller of two ways to the same axes
            axes = np.linalg.svd(standard, full_matrices=False)[2].T
        else:
            axes = np.linalg.eigh(standard.T @ standard)[1][:, ::-1]
        return cls(mean, scale, axes[:, :most])

    def __call__(self, features: Array) -> Array:
        """[item component]"""
        return np.asarray((features - self.mean) / self.scale @ self.axes)


def fit_logistic(features: Array, labels: Labels, strength: float, start: Array | None = None) -> Array:
    """Weights [component + 1], the intercept last, that minimise strength * sum of log losses + |weights|^2 / 2.

    Shape: features [item component], labels [item] 0 or 1. The intercept is not penalised. Newton's method from
    `start`, with the step halved until the objective falls. Unit of `strength`: 1 / penalty, known as C.
    Raises: NotApplicable where it does not converge.
    """
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.ones(features.shape[1]), 0.0)
    weights = np.zeros(design.shape[1]) if start is None else start
    value = _objective(design, labels, strength, penalty, weights)
    for _ in range(_MOST_STEPS):
        chances = _chances(design @ weights)
        slope = strength * design.T @ (chances - labels) + penalty * weights
        if np.abs(slope).max() <= _FLATTEST * max(1.0, strength * len(labels)):
            return weights
        bend = strength * (design.T * (chances * (1 - chances))) @ design + np.diag(penalty + 1e-12)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while (found := _objective(design, labels, strength, penalty, weights - size * step)) > value and size > 1e-9:
            size /= 2
        weights, value = weights - size * step, found
    raise NotApplicable(f"a linear readout did not converge in {_MOST_STEPS} steps: give it more prompts")


def chosen_strength(
    features: Array, labels: Labels, groups: Labels, most: int, rng: np.random.Generator, candidates: Sequence[float]
) -> float:
    """The strength with the least log loss on held-out thirds of these prompts; of equal ones the smallest.

    Shape: features [item width] as they come from the model, labels [item], groups [item] that stay together.
    """
    folds = grouped_folds(groups, labels, _INNER_FOLDS, rng)
    losses = np.zeros(len(candidates))
    for fold in range(_INNER_FOLDS):
        fitted = folds != fold
        prepared = Prepared.on(features[fitted], most)
        seen, unseen = prepared(features[fitted]), prepared(features[~fitted])
        weights = None
        for place, strength in enumerate(candidates):
            weights = fit_logistic(seen, labels[fitted], strength, weights)
            losses[place] += _log_losses(scores_of(weights, unseen), labels[~fitted]).sum()
    return float(candidates[int(losses.argmin())])


def scores_of(weights: Array, features: Array) -> Array:
    """Log odds of label 1: [item]."""
    return np.asarray(features @ weights[:-1] + weights[-1])


def grouped_folds(groups: Labels, labels: Labels, n_folds: int, rng: np.random.Generator) -> Labels:
    """A fold for each item, 0 .. n_folds - 1, no group in two, sizes as even as the groups allow: [item].

    Groups are dealt in random order, largest first, each to the fold that has least of what the group has most of, so
    that both labels are spread.
    Raises: NotApplicable for fewer groups than folds, or a fold that leaves out a label on either side.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < n_folds:
        raise NotApplicable(f"{n_folds} folds need as many groups of prompts, and there are {len(names)}")
    counts = np.stack([np.bincount(member[labels == label], minlength=len(names)) for label in (0, 1)], axis=1)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled, fold_of = np.zeros((n_folds, 2)), np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold = int(np.lexsort((filled.sum(axis=1), filled @ counts[group]))[0])
        fold_of[group] = fold
        filled[fold] += counts[group]
    if (filled == 0).any() or (filled == filled.sum(axis=0)).any():
        raise NotApplicable("a fold lacks one of the two labels: give more prompts or groups that hold both labels")
    return np.asarray(fold_of[member])


def _chances(scores: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(scores / 2)))


def _log_losses(scores: Array, labels: Labels) -> Array:
    return np.logaddexp(0.0, np.where(labels == 1, -scores, scores))


def _objective(design: Array, labels: Labels, strength: float, penalty: Array, weights: Array) -> float:
    return float(strength * _log_losses(design @ weights, labels).sum() + 0.5 * (penalty * weights**2).sum())
