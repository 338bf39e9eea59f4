"""Concepts: planted in Gaussian states from some layer on, refused where accuracy would say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mneme.batch import Batch
from mneme.concepts import Concept, Plan, control_labels, read_concept
from mneme.errors import NotApplicable
from mneme.promptset import Promptset

N, WIDTH, KEYS = 400, 12, 40
RNG = np.random.default_rng(0)


def prompts(concept, keys=None, ids=None, clusters=None):
    ids = torch.arange(len(concept))[:, None] if ids is None else ids
    conditions = {"concept": torch.as_tensor(np.asarray(concept, dtype=np.float64))}
    if keys is not None:
        conditions["concept_key"] = torch.as_tensor(np.asarray(keys, dtype=np.float64))
    return Promptset(Batch.of(ids), clusters=clusters, conditions=conditions)


def planted():
    """Gaussian states and the sign of their first feature, keys that know nothing of it."""
    states = RNG.normal(size=(N, WIDTH))
    order = np.argsort(states[:, 0])
    labels = np.zeros(N, dtype=np.int64)
    labels[order[N // 2 :]] = 1
    return states, labels, np.arange(N) % KEYS


def test_the_sign_of_a_feature_is_read_from_the_layer_that_has_it_and_a_control_label_is_not() -> None:
    states, labels, keys = planted()
    plan = Plan.of(Concept(labels, keys, keys), 5, 10, np.random.default_rng(0))
    before, after = (
        read_concept(layer, plan, np.random.default_rng(0)) for layer in (RNG.normal(size=(N, WIDTH)), states)
    )
    assert before["concept"].placed.mean() == pytest.approx(0.5, abs=0.08)
    assert after["concept"].placed.mean() > 0.99
    assert after["control"].right.mean() == pytest.approx(0.5, abs=0.1)
    assert after["concept"].right.mean() - after["control"].right.mean() == pytest.approx(0.5, abs=0.12)
    assert after["shuffled"].right.mean() == pytest.approx(0.5, abs=0.1)


def test_what_only_a_key_tells_is_no_concept_but_a_control_label() -> None:
    """States that hold nothing but the key let a readout learn any label of keys by heart."""
    keys = np.arange(N) % KEYS
    labels = (keys < KEYS // 2).astype(np.int64)
    states = np.eye(KEYS)[keys] + 0.01 * RNG.normal(size=(N, KEYS))
    plan = Plan.of(Concept(labels, keys, keys), 5, 4, np.random.default_rng(0))
    found = read_concept(states, plan, np.random.default_rng(0))
    assert found["control"].right.mean() > 0.99
    assert found["concept"].right.mean() < 0.6  # no fold has seen the keys that it is asked


def test_the_area_under_the_curve_is_the_share_of_ordered_pairs() -> None:
    states, labels, keys = planted()
    states = states + RNG.normal(size=states.shape)
    plan = Plan.of(Concept(labels, np.arange(N), keys), 2, 10, np.random.default_rng(0))
    reading = read_concept(states, plan, np.random.default_rng(0))["concept"]
    for fold in range(2):
        inside = plan.folds == fold
        for label in (0, 1):  # the mean over either label is the same area
            chosen = inside & (labels == label)
            other = inside & (labels != label)
            assert reading.placed[chosen].mean() == pytest.approx(reading.placed[other].mean())
    assert 0.6 < reading.right.mean() < 0.95


def test_every_prompt_is_judged_by_a_readout_that_did_not_see_it() -> None:
    """Labels that are noise are told apart no better than by chance, however many features there are."""
    states, labels = RNG.normal(size=(200, 150)), np.tile([0, 1], 100)
    plan = Plan.of(Concept(labels, np.arange(200), np.arange(200)), 5, 1, np.random.default_rng(0))
    found = read_concept(states, plan, np.random.default_rng(0))
    assert found["concept"].right.mean() == pytest.approx(0.5, abs=0.13)


def test_a_control_label_belongs_to_its_key_and_is_as_balanced_as_the_concept() -> None:
    keys = np.repeat(np.arange(50), 8)
    labels = control_labels(keys, 200, np.random.default_rng(0))
    assert all(len(set(labels[keys == key])) == 1 for key in range(50))
    assert labels.sum() == 200
    assert (labels != control_labels(keys, 200, np.random.default_rng(1))).any()


def test_groups_are_the_clusters_of_the_prompts_or_else_their_keys() -> None:
    concept = np.tile([0, 1], 10)
    keys = np.repeat(np.arange(10), 2) * 7
    alone = Concept.of(prompts(concept, keys), "concept")
    assert np.array_equal(alone.groups, alone.keys)
    assert alone.keys.tolist() == np.repeat(np.arange(10), 2).tolist()
    clusters = torch.arange(20) // 4
    assert Concept.of(prompts(concept, keys, clusters=clusters), "concept").groups.tolist() == clusters.tolist()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (prompts(np.tile([0, 1], 10)), "prompts with the condition 'concept_key', and there is none"),
        (prompts(np.tile([0, 2], 10), np.arange(20)), "a condition that is 0 or 1, and 'concept' is not"),
        (prompts(np.tile([0, 0, 1], 10), np.arange(30)), "one label in 67% of the prompts"),
        (prompts(np.tile([0, 1], 10), np.arange(20), torch.ones(20, 1, dtype=torch.int64)), "stands there twice"),
    ],
)
def test_prompts_that_would_say_nothing_are_refused(given, words) -> None:
    with pytest.raises(NotApplicable, match=words):
        Concept.of(given, "concept")


def test_too_few_prompts_are_refused() -> None:
    concept = Concept(np.tile([0, 1], 10), np.arange(20), np.arange(20))
    with pytest.raises(NotApplicable, match="20 prompts are too few for a linear readout with 10 prompts"):
        Plan.of(concept, 5, 10, np.random.default_rng(0))


def test_states_that_tell_nothing_at_all_are_undecided_and_earn_half() -> None:
    labels, keys = np.tile([0, 1], 40), np.repeat(np.arange(40), 2)
    plan = Plan.of(Concept(labels, keys, keys), 5, 10, np.random.default_rng(0))
    reading = read_concept(np.ones((80, 3)), plan, np.random.default_rng(0))["concept"]
    assert set(reading.right) == set(reading.placed) == {0.5}
