"""Pairs of a key and a value: a dictionary answers them all, a copier of a place does not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.promptsets.key_value_recall import Recall, drawn_slots, gap_weights, key_value_recall, scene
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("key_value_recall")


def pairs_in(text: str) -> dict[str, str]:
    """The pairs of the last block of a text."""
    said = text.rsplit("Pairs:", 1)[1].partition(".")[0].split()
    return dict(zip(said[::2], said[1::2], strict=True))


def test_a_scene_is_its_pairs_then_the_key_in_the_first_slot() -> None:
    told = scene(np.random.default_rng(0), Words(), Recall(n_pairs=2, n_slots=1))
    (key, value), other = told.binding, told.questions[0].wrong
    pairs = pairs_in(told.context.text)
    assert pairs[key] == value
    assert len(other) == 1
    assert set(pairs.values()) == {value, *other}
    assert told.prompt.text == f"Pairs: {' '.join(f'{each} {pairs[each]}' for each in pairs)}. Again: {key}"
    swapped = {key: other[0], **{each: value for each in pairs if each != key}}
    assert told.corrupt is not None
    assert pairs_in(told.corrupt.text) == swapped


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("key_value_recall")], ids=["words", "bpe"])
@pytest.mark.parametrize("reads", [1, 2])
def test_a_dictionary_answers_every_prompt(vocabulary, reads: int) -> None:
    prompts = key_value_recall(vocabulary, seed=0, n_items=60, n_pairs=6, reads=reads)
    keys, values = (words_at(prompts, vocabulary, label) for label in ("key", "value"))
    assert words_at(prompts, vocabulary, "question_key") == keys
    assert answers(prompts, vocabulary) == values
    for text, key, value in zip(prompts.texts, keys, values, strict=True):
        assert pairs_in(text)[text.split()[-1]] == value
        assert text.split()[-1] == key
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 6)


def test_a_training_document_asks_every_key_once_and_answers_right() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(100):
        told = scene(rng, words)
        pairs = pairs_in(told.context.text)
        assert {each.text.text.split()[-1]: each.answer for each in told.questions} == pairs
        assert len(told.questions) == len(pairs)
        for asked in told.questions:
            assert {asked.answer, *asked.wrong} == set(pairs.values())
            assert not set(asked.text.text.split()[:-1]) & {*pairs, *pairs.values()}


def test_training_scenes_have_no_held_out_pair() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(100):
        assert all(words.allows(pair) for pair in pairs_in(scene(rng, words).context.text).items())


def test_slots_are_drawn_by_the_power_law_of_zoology() -> None:
    expected = [0.338, 0.170, 0.114, 0.086, 0.069, 0.057, 0.049, 0.043, 0.038, 0.035]
    assert gap_weights(10, 0.01) == pytest.approx(expected, abs=6e-4)
    assert gap_weights(4, 1.0) == pytest.approx([0.25] * 4)
    rng = np.random.default_rng(0)
    drawn = Counter(drawn_slots(rng, Recall(2, 10), 1)[0] for _ in range(4000))
    assert [drawn[slot] / 4000 for slot in range(10)] == pytest.approx(expected, abs=0.025)
    assert sorted(drawn_slots(rng, Recall(10, 10), 10)) == list(range(10))


def test_other_nouns_fill_the_slots_before_the_key() -> None:
    prompts = key_value_recall(WORDS, seed=0, n_items=60, n_slots=6, gap_power=1.0)
    gaps = Counter()
    for text in prompts.texts:
        fill = text.split("Again: ")[1].split()[:-1]
        gaps[len(fill)] += 1
        assert not set(fill) & {*pairs_in(text), *pairs_in(text).values()}
        assert set(fill) <= set(Words("evaluation").of("nouns"))
    assert set(gaps) == {0, 2, 4, 6, 8, 10}


def test_reading_twice_says_the_whole_block_twice() -> None:
    prompts = key_value_recall(WORDS, seed=0, n_items=20, reads=2)
    for text in prompts.texts:
        once, again = text.split(". Pairs: ")
        assert once == f"Pairs: {again}"
    for label in ("key", "value"):
        assert words_at(prompts, WORDS, f"{label}_first_read") == words_at(prompts, WORDS, label)
        assert (prompts.clean.labels[f"{label}_first_read"] < prompts.clean.labels[label]).all()


@pytest.mark.parametrize("reads", [1, 2])
def test_the_corrupt_prompt_has_every_value_at_another_key(reads: int) -> None:
    prompts = key_value_recall(WORDS, seed=0, n_items=30, reads=reads)
    for item, text in enumerate(prompts.texts):
        corrupt = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.clean.lengths[item]))
        before, after = pairs_in(text), pairs_in(corrupt)
        assert list(before) == list(after)
        assert sorted(before.values()) == sorted(after.values())
        assert all(before[key] != after[key] for key in before)
        assert len(changed_places(prompts, item)) == 8 * reads


def test_the_asked_place_is_balanced_and_copying_a_place_stays_near_chance() -> None:
    prompts = key_value_recall(WORDS, seed=0, n_items=400, n_pairs=4)
    places = Counter(list(pairs_in(text)).index(text.split()[-1]) for text in prompts.texts)
    for place in range(4):
        low, high = wilson(places[place], 400, 0.999)
        assert low <= 1 / 4 <= high
    for low, _ in copies_right(prompts).values():
        assert low <= 1 / 4
    assert prompts.clusters is not None
    assert len(prompts.clusters.unique()) == 4


def test_the_token_after_the_value_is_the_next_key() -> None:
    prompts = key_value_recall(WORDS, seed=0, n_items=40)
    for text, value, after in zip(
        prompts.texts, words_at(prompts, WORDS, "value"), words_at(prompts, WORDS, "value_next"), strict=True
    ):
        keys, values = list(pairs_in(text)), list(pairs_in(text).values())
        assert after == [*keys, "."][values.index(value) + 1]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_pairs": 1}, "key_value_recall.n_pairs is 1: give a whole number of at least 2"),
        ({"n_pairs": 40}, "40 distinct codes are asked for"),
        ({"reads": 3}, "key_value_recall.reads is 3: give a whole number from 1 to 2"),
        ({"n_slots": 0}, "key_value_recall.n_slots is 0"),
        ({"gap_power": -1}, "key_value_recall.gap_power is -1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        key_value_recall(WORDS, seed=0, **parameters)


def test_too_few_words_that_are_single_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="single tokens"):
        key_value_recall(bpe_vocabulary("key_value_recall", 300), seed=0)
