"""What a stage's value depends on is in its key, and a model that has no steps is what it is."""

from __future__ import annotations

import pytest

from mneme.errors import NotApplicable
from storage.specs import TrialSpec
from storage.studies import load_study
from tasks.keys import prepare_parts, recipe_parts
from tasks.materialise import at_step


def first_trial() -> TrialSpec:
    return load_study("quickstart").trials[0]


def test_the_texts_that_generators_and_recipes_read_are_part_of_what_they_make() -> None:
    model = {"facts": {"tokenizer_sha256": "t", "config_sha256": "c"}}
    for parts in (recipe_parts(first_trial()), prepare_parts(first_trial(), model)):
        texts = {name: sha for name, sha in parts.items() if name.startswith("data.texts/")}
        assert texts
        assert all(name.endswith(".txt") and len(sha) == 16 for name, sha in texts.items())


def test_a_training_depends_on_its_seed_and_parameters() -> None:
    trial = first_trial()
    parts = recipe_parts(trial)
    assert (parts["recipe"], parts["model_seed"]) == ("induction_lm", 0)
    assert recipe_parts(trial.model_copy(update={"model_seed": 1})) != parts


def test_a_model_that_is_counted_and_not_trained_is_finished_and_has_no_later_step() -> None:
    value = {"training": {"documents": 3}, "kept": {}, "facts": {}}
    assert at_step(first_trial(), value) is value
    with pytest.raises(NotApplicable, match=r"training ended at step 0: model quick\[0\] has no step 4"):
        at_step(first_trial().model_copy(update={"step": 4}), value)
