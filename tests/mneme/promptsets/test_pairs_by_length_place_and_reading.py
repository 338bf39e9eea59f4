"""Lists of pairs in groups: the same items at every length, place and number of readings; a dictionary answers all."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.pair_lists import PairList, asks, drawn_pairs
from mneme.promptset import Promptset
from mneme.promptsets.key_value_grid import key_value_grid
from mneme.promptsets.lost_in_the_middle import lost_in_the_middle
from mneme.promptsets.needle_places import needle_places
from mneme.promptsets.read_twice import read_twice
from mneme.stats import wilson
from mneme.words import Words, is_held_out
from tests.scene_checks import answers, changed_places, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("key_value_recall")
PAIRS = PairList(("river", "stone", "cloud"), ("alpha", "beta", "gamma"), 1)


def pairs_in(text: str) -> dict[str, str]:
    """The pairs of the last block of a text."""
    said = text.rsplit("Pairs:", 1)[1].partition(".")[0].split()
    return dict(zip(said[::2], said[1::2], strict=True))


def groups(prompts: Promptset) -> list[list[int]]:
    """The items of each cluster."""
    return [torch.nonzero(prompts.clusters == each)[:, 0].tolist() for each in prompts.clusters.unique()]


def right(prompts: Promptset, guess) -> np.ndarray:
    """Whether a reader `guess(text) -> word` gives the answer of each prompt."""
    said = [guess(text) for text in prompts.texts]
    return np.array([each == answer for each, answer in zip(said, answers(prompts, WORDS), strict=True)])


def dictionary(text: str) -> str | None:
    return pairs_in(text).get(text.rsplit(maxsplit=1)[-1])


def last_value(text: str) -> str:
    return list(pairs_in(text).values())[-1]


def test_a_list_is_told_with_its_asked_pair_named_and_its_values_moved_on_in_the_corrupt_prompt() -> None:
    scene = PAIRS.answered(asks("stone", ["wind", "rain"]))
    assert scene.prompt.text == "Pairs: river alpha stone beta cloud gamma. Again: wind rain stone"
    assert scene.corrupt.text == "Pairs: river gamma stone alpha cloud beta. Again: wind rain stone"
    assert {name: scene.prompt.text[start:end] for name, (start, end) in scene.prompt.spans.items()} == {
        "key": "stone",
        "value": "beta",
        "question_key": "stone",
        "question": "wind rain stone",
    }
    assert (scene.questions[0].answer, scene.questions[0].wrong) == ("beta", ("alpha", "gamma"))
    assert scene.binding == ("stone", "beta")
    assert PAIRS.arranged([2, 1]) == PairList(("cloud", "stone"), ("gamma", "beta"), 1)


def test_drawn_pairs_are_distinct_and_the_asked_one_is_held_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs = drawn_pairs(rng, Words("evaluation"), 6, 2, but=("alpha", "river"))
        assert len({*pairs.keys, *pairs.values, "alpha", "river"}) == 14
        assert is_held_out((pairs.key, pairs.value))
        assert pairs.asked == 2


@pytest.mark.parametrize("build", [key_value_grid, lost_in_the_middle, read_twice])
def test_a_dictionary_answers_every_prompt_of_words_and_of_parts_of_words(build) -> None:
    sizes = {"n_pairs": [4, 8]} if build is key_value_grid else {"n_pairs": 8}
    for vocabulary in (WORDS, bpe_vocabulary("key_value_recall")):
        prompts = build(vocabulary, seed=0, n_items=10, **sizes)
        keys, values = (words_at(prompts, vocabulary, label) for label in ("key", "value"))
        assert words_at(prompts, vocabulary, "question_key") == keys
        assert answers(prompts, vocabulary) == values
        assert [dictionary(text) for text in prompts.texts] == values
        assert all(is_held_out(pair) for pair in zip(keys, values, strict=True))


def test_a_dictionary_is_always_right_and_the_last_value_one_time_in_n_pairs() -> None:
    prompts = key_value_grid(WORDS, seed=0, n_items=300, n_pairs=[4, 8])
    n_pairs = prompts.conditions["n_pairs"]
    assert right(prompts, dictionary).all()
    for size in (4, 8):
        hits = right(prompts, last_value)[n_pairs.numpy() == size]
        low, high = wilson(int(hits.sum()), len(hits), 0.999)
        assert low <= 1 / size <= high
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx((1 / 4 + 1 / 8) / 2)


def test_shorter_lists_are_parts_of_the_longer_ones_with_the_same_question() -> None:
    prompts = key_value_grid(WORDS, seed=0, n_items=20, n_pairs=[8, 3, 5])
    assert len(groups(prompts)) == 20
    for group in groups(prompts):
        assert prompts.conditions["n_pairs"][group].tolist() == [3, 5, 8]
        told = [pairs_in(prompts.texts[item]) for item in group]
        for shorter, longer in pairwise(told):
            assert shorter.items() <= longer.items()
            assert list(shorter) == [key for key in longer if key in shorter]
        assert len({prompts.texts[item].split("Again: ")[1] for item in group}) == 1


def test_every_place_is_asked_as_often() -> None:
    prompts = key_value_grid(WORDS, seed=0, n_items=400, n_pairs=[4])
    places = Counter(list(pairs_in(text)).index(text.split()[-1]) for text in prompts.texts)
    for place in range(4):
        low, high = wilson(places[place], 400, 0.999)
        assert low <= 1 / 4 <= high


@pytest.mark.parametrize("control", ["shuffled_values", "unseen_key"])
def test_no_reader_of_a_control_is_above_one_in_n_pairs(control: str) -> None:
    prompts = key_value_grid(WORDS, seed=0, n_items=300, n_pairs=[4], control=control)
    for reader in (dictionary, last_value):
        hits = right(prompts, reader)
        low, _ = wilson(int(hits.sum()), len(hits), 0.999)
        assert low <= 1 / 4
    told = [{*pairs_in(text).values()} for text in prompts.texts]
    assert all(answer in values for answer, values in zip(answers(prompts, WORDS), told, strict=True))
    is_key = [text.split()[-1] in pairs_in(text) for text in prompts.texts]
    assert answers(prompts, WORDS) == answers(key_value_grid(WORDS, seed=0, n_items=300, n_pairs=[4]), WORDS)
    assert all(is_key) if control == "shuffled_values" else not any(is_key)


def test_the_corrupt_prompt_has_every_value_at_the_next_key() -> None:
    for prompts in (
        key_value_grid(WORDS, seed=0, n_items=5, n_pairs=[3, 6]),
        lost_in_the_middle(WORDS, seed=0, n_items=5, n_pairs=7),
        read_twice(WORDS, seed=0, n_items=5, n_pairs=5),
    ):
        for item, text in enumerate(prompts.texts):
            corrupt = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.clean.lengths[item]))
            before, after = pairs_in(text), pairs_in(corrupt)
            assert list(before) == list(after)
            assert list(after.values()) == [list(before.values())[-1], *list(before.values())[:-1]]
            assert len(changed_places(prompts, item)) == len(before)


def test_the_asked_pair_moves_through_the_list_and_the_others_keep_their_order() -> None:
    prompts = lost_in_the_middle(WORDS, seed=0, n_items=8, n_pairs=19, n_places=7)
    assert len(prompts) == 56
    for group in groups(prompts):
        assert prompts.conditions["place"][group].tolist() == [0, 3, 6, 9, 12, 15, 18]
        rest = set()
        for item in group:
            told, key = list(pairs_in(prompts.texts[item]).items()), prompts.texts[item].split()[-1]
            at = [each for each, _ in told].index(key)
            assert at == prompts.conditions["place"][item]
            rest.add((tuple(told[:at] + told[at + 1 :]), told[at]))
        assert len(rest) == 1
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 19)


def test_places_include_the_first_and_the_last_pair_and_are_spread_evenly_in_between() -> None:
    prompts = lost_in_the_middle(WORDS, seed=0, n_items=2, n_pairs=10, n_places=5)
    assert prompts.conditions["place"][:5].tolist() == [0, 2, 4, 7, 9]


def test_gold_only_and_the_closed_book_ask_the_same_items_once_each() -> None:
    places, gold, closed = (
        lost_in_the_middle(WORDS, seed=0, n_items=6, n_pairs=8, context=context) for context in ("all", "gold", "none")
    )
    assert len(gold) == len(closed) == 6
    for item, group in enumerate(groups(places)):
        key, value = words_at(places, WORDS, "key")[group[0]], words_at(places, WORDS, "value")[group[0]]
        assert gold.texts[item] == f"Pairs: {key} {value}. Again: {key}"
        assert closed.texts[item] == f"Again: {key}"
        assert answers(gold, WORDS)[item] == answers(closed, WORDS)[item] == value
    assert torch.equal(gold.wrong_ids, places.wrong_ids[[group[0] for group in groups(places)]])
    assert gold.corrupt is None
    assert "place" not in gold.conditions


def test_a_second_reading_is_the_same_item_again() -> None:
    prompts = read_twice(WORDS, seed=0, n_items=10, n_pairs=6)
    for once, twice in groups(prompts):
        assert prompts.conditions["reads"][[once, twice]].tolist() == [1, 2]
        assert prompts.texts[twice] == f"{prompts.texts[once]}. {prompts.texts[once]}"
        further = prompts.clean.labels["value"][twice] - prompts.clean.labels["value"][once]
        assert int(further) == len(f"Pairs : . Again : key . {' pair' * 12}".split())


@pytest.mark.parametrize("first", ["same", "shuffled", "irrelevant", "question"])
def test_what_is_read_first_is_as_long_and_says_what_the_control_asks(first: str) -> None:
    prompts = read_twice(WORDS, seed=0, n_items=10, n_pairs=6, first=first)
    same = read_twice(WORDS, seed=0, n_items=10, n_pairs=6)
    for once, twice in groups(prompts):
        text, key = prompts.texts[once], prompts.texts[once].split()[-1]
        assert text == same.texts[once]
        assert prompts.texts[twice].endswith(f". {text}")
        front = prompts.texts[twice].removesuffix(f". {text}")
        if first == "question":
            assert front == f"Again: {key}"
            continue
        assert prompts.clean.lengths[twice] == same.clean.lengths[twice]
        read, then = pairs_in(front), pairs_in(text)
        if first == "irrelevant":
            assert not {*read, *read.values()} & {*then, *then.values()}
            assert front.split()[-1] in read
        else:
            assert read == then
            assert front.split()[-1] == key
            assert (list(read) == list(then)) == (first == "same")


def sentences(text: str) -> Counter[str]:
    return Counter(text.replace("Remember this.", "").split("."))


def test_a_needle_moves_through_its_filler_and_nothing_else_does() -> None:
    words = word_vocabulary("needle")
    prompts = needle_places(words, seed=0, n_items=4, n_tokens=120)
    values = words_at(prompts, words, "value")
    assert answers(prompts, words) == values
    for group in groups(prompts):
        assert prompts.conditions["place"][group].tolist() == pytest.approx([each / 6 for each in range(7)], abs=1e-4)
        assert len({frozenset(sentences(prompts.texts[item]).items()) for item in group}) == 1
        at = prompts.clean.labels["value"][group].tolist()
        assert at == sorted(set(at))
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("build", "parameters", "words"),
    [
        (key_value_grid, {"n_pairs": []}, r"key_value_grid.n_pairs is \[\]: give a list"),
        (key_value_grid, {"n_pairs": 8}, "key_value_grid.n_pairs is 8: give a list"),
        (key_value_grid, {"n_pairs": [4, 1]}, "key_value_grid.n_pairs is 1: give a whole number from 2"),
        (key_value_grid, {"n_pairs": [4, 4]}, "name each number once"),
        (key_value_grid, {"n_pairs": [4, 90]}, "90 distinct codes are asked for and the tokenizer has 48"),
        (key_value_grid, {"control": "all"}, "control is 'all': choose one of none, shuffled_values, unseen_key"),
        (lost_in_the_middle, {"n_pairs": 4}, "n_pairs is 4: give a whole number of at least 5"),
        (lost_in_the_middle, {"n_pairs": 6}, "n_places is 7 and there are 6 pairs: ask for fewer places"),
        (lost_in_the_middle, {"context": "some"}, "context is 'some': choose one of all, gold, none"),
        (read_twice, {"n_pairs": 1}, "n_pairs is 1"),
        (read_twice, {"first": "again"}, "first is 'again': choose one of same, shuffled, irrelevant, question"),
        (needle_places, {"n_places": 3}, "n_places is 3: give a whole number of at least 5"),
        (needle_places, {"n_tokens": 60}, "n_tokens is 60, and 20 texts had fewer sentences than 7 places need"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(build, parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        build(word_vocabulary("needle") if build is needle_places else WORDS, seed=0, **parameters)
