"""One test for every promptset generator, so that nobody is forgotten: a new member is tested by being there."""

import importlib
import json

import pytest
import torch

from mneme.errors import NotApplicable
from mneme.promptset import Vocabulary, promptsets
from mneme.vocabulary import read_vocabulary
from tests.scene_vocabularies import word_vocabulary
from tests.small_tokenizers import save_tokenizer
from tests.task_vocabularies import TASKS, task_vocabulary

NAMES = promptsets.names()
ROWS = [
    {"clean": f"The {noun} and the water", "corrupt": f"The water and the {noun}", "correct": "was", "wrong": "had"}
    for noun in ("wind", "morning", "road", "house", "hut", "day", "night", "ridge")
]
REQUIRED = {"user_prompts": {"rows": ROWS}}
TOLD_BY = {  # whose scenes, or words, a generator without a scene of its own tells
    "noun_list_grid": "verbatim_list",
    "noun_list_scenarios": "verbatim_list",
    "evidence_present": "needle",
    "needle_grid": "needle",
    "slot_of_k": "key_value_recall",
    "key_value_grid": "key_value_recall",
    "lost_in_the_middle": "key_value_recall",
    "read_twice": "key_value_recall",
    "needle_places": "needle",
    "true_facts": "stored_facts",
    "fact_conflict": "stored_facts",
}


@pytest.fixture(scope="module")
def of_the_prose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return read_vocabulary(folder)


@pytest.fixture
def vocabulary(name, of_the_prose):
    """A tokenizer that knows the generator's words: a behavior told in scenes needs them as single tokens."""
    if name in TASKS:
        return task_vocabulary(name)
    teller = TOLD_BY.get(name, name)
    is_told = hasattr(importlib.import_module(f"mneme.promptsets.{teller}"), "scene")
    return word_vocabulary(teller) if is_told else of_the_prose


def build(name, vocabulary, seed=0):
    return promptsets.get(name).build(vocabulary, seed=seed, **REQUIRED.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_comes_from(name):
    member = promptsets.get(name)
    assert member.source
    assert member.module == f"mneme.promptsets.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_its_prompts_fit_the_vocabulary_and_the_context(name, vocabulary):
    prompts = build(name, vocabulary)
    for batch in (prompts.clean, prompts.corrupt):
        if batch is not None:
            assert int(batch.ids.max()) < vocabulary.size
            assert int(batch.ids.min()) >= 0
            assert batch.ids.shape[1] <= vocabulary.context
    assert prompts.texts is None or len(prompts.texts) == len(prompts)


@pytest.mark.parametrize("name", NAMES)
def test_its_facts_are_json_and_say_how_prompts_begin(name, vocabulary):
    prompts = build(name, vocabulary)
    assert json.loads(json.dumps(dict(prompts.facts))) == dict(prompts.facts)
    assert prompts.facts["bos_mode"] in ("native", "eot_as_bos", "none")
    begins = (prompts.clean.ids[:, 0] == vocabulary.first_id).all()
    assert bool(begins) == (prompts.facts["bos_mode"] != "none")
    assert prompts.facts["offset"] == int(begins)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_token_stands_in_front_once(name, vocabulary):
    ids = build(name, vocabulary).clean.ids
    lengths = build(name, vocabulary).clean.lengths
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    assert (((ids == vocabulary.first_id) & inside).sum(dim=1) == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_prompts(name, vocabulary):
    first, again = build(name, vocabulary), build(name, vocabulary)
    assert torch.equal(first.clean.ids, again.clean.ids)
    assert first.facts == again.facts
    if name not in REQUIRED:
        assert not torch.equal(first.clean.ids, build(name, vocabulary, seed=1).clean.ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_tokenizer_gets_prompts_or_not_applicable(name):
    bare = Vocabulary(300, 128, "eot_as_bos", 0, frozenset({0}))
    if promptsets.get(name).needs_tokenizer:
        with pytest.raises(NotApplicable):
            build(name, bare)
    else:
        assert len(build(name, bare)) > 0
