"""Groups of three: the text answers every question, and the counterfactual points three ways at once."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.promptsets.entity_binding import ASKINGS, SLOTS, Asked, entity_binding, scene
from mneme.words import Words
from tests.scene_checks import answers, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("entity_binding")


def groups_in(text: str) -> list[dict[str, str]]:
    """The groups in the order told."""
    found = re.findall(r"(\w+) fills a (\w+) with (\w+)", text)
    return [dict(zip(SLOTS, each, strict=True)) for each in found]


def asked_in(text: str, by: str, target: str) -> str:
    """The word that the question gives."""
    pattern = ASKINGS[by, target].replace("{question_key}", r"(\w+)")
    return re.search(pattern + "$", text)[1]


def index_of(groups: list[dict[str, str]], slot: str, word: str) -> int:
    return [each[slot] for each in groups].index(word)


def test_two_groups_read_like_the_paper_and_have_no_counterfactual() -> None:
    told = scene(np.random.default_rng(0), Words(), Asked(2, "container", "person", 0))
    person, container, liquid = told.binding
    other = groups_in(told.context.text)[1]
    assert told.prompt.text == (
        f"{person} fills a {container} with {liquid}, {other['person']} fills a {other['container']} with "
        f"{other['liquid']}. So the {container} is filled by"
    )
    assert (told.questions[0].answer, told.questions[0].wrong) == (person, (other["person"],))
    assert told.corrupt is None


@pytest.mark.parametrize(("by", "target"), ASKINGS)
def test_the_counterfactual_points_to_three_groups_other_than_the_asked_one(by: str, target: str) -> None:
    prompts = entity_binding(WORDS, seed=0, n_items=25, n_groups=5, by=by, target=target)
    labels = {name: words_at(prompts, WORDS, name) for name in ("positional", "lexical", "reflexive", "target", "key")}
    for item, text in enumerate(prompts.texts):
        corrupt = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.clean.lengths[item]))
        base, counter = groups_in(text), groups_in(corrupt)
        key, own_key = asked_in(text, by, target), asked_in(corrupt, by, target)
        asked, position = index_of(base, by, key), index_of(counter, by, own_key)
        by_key = index_of(base, by, own_key)
        by_answer = index_of(base, target, counter[position][target])
        assert len({asked, position, by_key, by_answer}) == 4
        assert labels["target"][item] == base[asked][target]
        assert labels["key"][item] == key
        assert labels["positional"][item] == base[position][target]
        assert labels["lexical"][item] == base[by_key][target]
        assert labels["reflexive"][item] == base[by_answer][target]
        assert sorted(each[target] for each in base) == sorted(each[target] for each in counter)


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("entity_binding")], ids=["words", "bpe"])
def test_a_careful_reader_finds_every_answer_and_every_label(vocabulary) -> None:
    prompts = entity_binding(vocabulary, seed=0, n_items=60)
    keys, targets = ([words_at(prompts, vocabulary, f"{name}_{at}") for at in range(6)] for name in ("key", "target"))
    for item, (text, answer) in enumerate(zip(prompts.texts, answers(prompts, vocabulary), strict=True)):
        groups, key = groups_in(text), asked_in(text, "person", "liquid")
        assert answer == groups[index_of(groups, "person", key)]["liquid"]
        assert [each[item] for each in keys] == [each["person"] for each in groups]
        assert [each[item] for each in targets] == [each["liquid"] for each in groups]
        assert words_at(prompts, vocabulary, "question_key")[item] == key
        words = [word for each in groups for word in each.values()]
        assert len(set(words)) == len(words) == 18


def test_a_training_document_asks_several_ways_and_answers_right() -> None:
    rng, words = np.random.default_rng(0), Words()
    ways = Counter()
    for _ in range(200):
        told = scene(rng, words)
        groups = groups_in(told.context.text)
        assert all(words.allows(tuple(each.values())) for each in groups)
        for asked in told.questions:
            by, target = next(
                way
                for way in ASKINGS
                if re.fullmatch(ASKINGS[way].replace("{question_key}", r"\w+"), asked.text.text)
                and asked_in(asked.text.text, *way) in [each[way[0]] for each in groups]
            )
            group = groups[index_of(groups, by, asked_in(asked.text.text, by, target))]
            assert group[target] == asked.answer
            assert {asked.answer, *asked.wrong} == {each[target] for each in groups}
            ways[by, target] += 1
    assert set(ways) == set(ASKINGS)


def test_every_group_is_asked_and_copying_a_place_stays_near_chance() -> None:
    prompts = entity_binding(WORDS, seed=0, n_items=400)
    for low, _ in copies_right(prompts).values():
        assert low <= 1 / 6
    assert prompts.clusters is not None
    assert int(prompts.clusters.bincount().min()) > 40
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_groups": 3}, "entity_binding.n_groups is 3: give a whole number of at least 4"),
        ({"n_groups": 20}, "20 distinct containers are asked for"),
        ({"target": "person"}, "entity_binding.target is 'person' as is entity_binding.by"),
        ({"by": "place"}, "choose one of person, container, liquid"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        entity_binding(WORDS, seed=0, **parameters)


def test_too_few_words_that_are_single_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="single tokens"):
        entity_binding(bpe_vocabulary("entity_binding", 300), seed=0)
