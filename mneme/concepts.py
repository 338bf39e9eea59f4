"""Whether a concept can be read off a model's states: held-out accuracy beside that of a control task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.linear_readout import (
    STRENGTHS,
    Array,
    Labels,
    Prepared,
    chosen_strength,
    fit_logistic,
    grouped_folds,
    scores_of,
)
from mneme.promptset import Promptset

LARGEST_SHARE = 0.6  # of one label, beyond which accuracy alone says little
_FEWEST_COMPONENTS = 2
_UNDECIDED = 1e-9  # log odds this small are rounding


@dataclass(frozen=True)
class Concept:
    """What is to be read off: label 0 or 1, key (the type of input) and group (never on both sides) [item] int64."""

    labels: Labels
    keys: Labels
    groups: Labels

    @classmethod
    def of(cls, prompts: Promptset, name: str) -> Concept:
        """The condition `name` of the prompts, their condition `concept_key`, and their clusters as groups.

        Raises: NotApplicable where a condition is missing, is not 0 or 1 everywhere, or has more than 60 % of one
        label, and where a prompt stands there twice.
        """
        lacking = [each for each in (name, "concept_key") if each not in prompts.conditions]
        if lacking:
            raise NotApplicable(f"concept_depth needs prompts with the condition '{lacking[0]}', and there is none")
        given = prompts.conditions[name].numpy()
        if not np.isin(given, (0.0, 1.0)).all():
            raise NotApplicable(f"concept_depth needs a condition that is 0 or 1, and '{name}' is not")
        share = max(given.mean(), 1 - given.mean())
        if share > LARGEST_SHARE:
            raise NotApplicable(f"'{name}' has one label in {share:.0%} of the prompts: balance it to 60 % at most")
        _refuse_repeated(prompts.clean)
        keys = np.unique(prompts.conditions["concept_key"].numpy(), return_inverse=True)[1]
        groups = keys if prompts.clusters is None else prompts.clusters.numpy()
        return cls(given.astype(np.int64), keys.astype(np.int64), groups.astype(np.int64))


@dataclass(frozen=True)
class Reading:
    """How well held-out prompts were told apart, per prompt: is right 0 or 1, and placed.

    right is 1/2 where a readout has learnt nothing, so that both labels score the same. placed: share of the other
    label's prompts in its fold that score on the right side of it, a tie as half; its mean is the area under the ROC
    curve. Shape: both [item].
    """

    right: Array
    placed: Array


@dataclass(frozen=True)
class Plan:
    """Folds of the concept, labels and folds of its control task, shuffled labels [item]; components at most."""

    concept: Concept
    folds: Labels
    control: Labels
    control_folds: Labels
    shuffled: Labels
    n_folds: int
    most: int

    @classmethod
    def of(cls, concept: Concept, n_folds: int, per_component: int, rng: np.random.Generator) -> Plan:
        """Drawn once for all layers; raises NotApplicable for too few prompts or groups.

        The control task gives every key one fixed label, at random, as balanced as the concept. What belongs to a key
        can only be learnt from that key, so its folds cut across keys, where those of the concept keep groups whole.
        """
        n_items = len(concept.labels)
        most = (n_items - -(-n_items // n_folds)) // per_component
        if most < _FEWEST_COMPONENTS:
            raise NotApplicable(
                f"{n_items} prompts are too few for a linear readout with {per_component} prompts to a component"
            )
        control = control_labels(concept.keys, int(concept.labels.sum()), rng)
        return cls(
            concept,
            folds=grouped_folds(concept.groups, concept.labels, n_folds, rng),
            control=control,
            control_folds=grouped_folds(np.arange(n_items), control, n_folds, rng),
            shuffled=rng.permutation(concept.labels),
            n_folds=n_folds,
            most=most,
        )


def read_concept(features: Array, plan: Plan, rng: np.random.Generator) -> dict[str, Reading]:
    """Readings of `concept`, `control` and `shuffled` (the concept's labels dealt out anew) from states [item width].

    Each fold's strength is chosen on the rest, for the concept, and serves the other two: they get the same readout.
    """
    concept = plan.concept
    strengths = []
    for fold in range(plan.n_folds):
        rest = plan.folds != fold
        labels, groups = concept.labels[rest], concept.groups[rest]
        strengths.append(chosen_strength(features[rest], labels, groups, plan.most, rng, STRENGTHS))
    tasks = {
        "concept": (concept.labels, plan.folds),
        "control": (plan.control, plan.control_folds),
        "shuffled": (plan.shuffled, plan.folds),
    }
    return {name: _held_out(features, *task, strengths, plan.most) for name, task in tasks.items()}


def control_labels(keys: Labels, n_ones: int, rng: np.random.Generator) -> Labels:
    """One random label per key, the same for all prompts with it, about `n_ones` of them 1: [item]."""
    counts = np.bincount(keys)
    is_one, total = np.zeros(len(counts), dtype=np.int64), 0
    for key in rng.permutation(len(counts)):
        if total + counts[key] / 2 <= n_ones:
            is_one[key], total = 1, total + int(counts[key])
    return np.asarray(is_one[keys])


def _held_out(features: Array, labels: Labels, folds: Labels, strengths: list[float], most: int) -> Reading:
    right, placed = np.zeros(len(labels)), np.zeros(len(labels))
    for fold, strength in enumerate(strengths):
        rest = folds != fold
        prepared = Prepared.on(features[rest], most)
        weights = fit_logistic(prepared(features[rest]), labels[rest], strength)
        scores = scores_of(weights, prepared(features[~rest]))
        signed = np.where(labels[~rest] == 1, scores, -scores)
        right[~rest] = (signed > _UNDECIDED) + 0.5 * (np.abs(signed) <= _UNDECIDED)
        placed[~rest] = _placed(scores, labels[~rest])
    return Reading(right, placed)


def _placed(scores: Array, labels: Labels) -> Array:
    """[item]"""
    differences = np.where(labels == 1, 1, -1)[:, None] * (scores[:, None] - scores[None])
    credit = (differences > 0) + 0.5 * (differences == 0)
    is_other = labels[:, None] != labels[None]
    with np.errstate(invalid="ignore"):  # NaN in a fold of one label, as dealt out anew they may be
        return np.asarray((credit * is_other).sum(axis=1) / is_other.sum(axis=1))


def _refuse_repeated(batch: Batch) -> None:
    rows = {tuple(row[:length]) for row, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)}
    if len(rows) < len(batch):
        raise NotApplicable("a prompt stands there twice, so it could be learnt in one fold and asked in another")
