"""Needles: the asked value can be read off the text, stands at the asked depth, and no shortcut finds it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.promptsets.needle import ENDINGS, Hay, needle, scene
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("needle")
NEEDLE = re.compile(r"The (?:secret code|magic word|hidden sign) of (\w+) is (\w+)")


def solved(text: str) -> tuple[str, dict[str, str]]:
    """The asked key, and the value of each key: what a careful reader finds."""
    return text.split()[-2], dict(NEEDLE.findall(text))


def test_a_scene_without_filler_is_its_needles_and_its_question() -> None:
    rng = np.random.default_rng(0)
    told = scene(rng, Words(), 2, Hay(30, 1.0))
    opening, other, asked = told.context.text.split(" The ")
    name, value = told.binding
    assert opening == "Remember this."
    assert NEEDLE.findall(f"The {asked}") == [(name, value)]
    assert told.questions[0].text.text == f"So the {' '.join(other.split()[:2])} of {name} is"
    assert told.questions[0].answer == value
    assert told.questions[0].wrong[0] == NEEDLE.findall(f"The {other}")[0][1]


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("needle")], ids=["words", "bpe"])
def test_a_careful_reader_finds_every_answer(vocabulary) -> None:
    prompts = needle(vocabulary, seed=0, n_items=100)
    for text, answer, key, value in zip(
        prompts.texts,
        answers(prompts, vocabulary),
        words_at(prompts, vocabulary, "key"),
        words_at(prompts, vocabulary, "value"),
        strict=True,
    ):
        asked, values = solved(text)
        assert len(values) == 3
        assert (key, value, answer) == (asked, values[asked], values[asked])
        assert len(re.findall(rf"\b{answer}\b", text)) == 1
    assert words_at(prompts, vocabulary, "question_key") == words_at(prompts, vocabulary, "key")
    assert prompts.clean.labels["end"].tolist() == (prompts.clean.lengths - 1).tolist()
    assert torch.equal(prompts.clean.labels["value_first"], prompts.clean.labels["value"])


def test_a_training_document_asks_every_needle_and_answers_right() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(100):
        told = scene(rng, words)
        values = dict(NEEDLE.findall(told.context.text))
        assert {each.text.text.split()[-2]: each.answer for each in told.questions} == values


@pytest.mark.parametrize("n_tokens", [64, 128, 500])
def test_prompts_are_as_long_as_asked_but_for_less_than_a_sentence(n_tokens: int) -> None:
    for vocabulary in (WORDS, bpe_vocabulary("needle")):
        lengths = needle(vocabulary, seed=0, n_items=12, n_tokens=n_tokens).clean.lengths
        assert int(lengths.max()) <= n_tokens
        assert int(lengths.min()) > n_tokens - 18


def test_the_asked_needle_stands_at_its_depth() -> None:
    first, last = (needle(WORDS, seed=0, n_items=20, depth=depth) for depth in (0, 1))
    assert set(first.clean.labels["key"].tolist()) == {8}  # <bos> Remember this. The secret code of Mary
    for text in last.texts:
        told, asked = text.rsplit(" So the ", 1)[0], solved(text)[0]
        assert told.rindex(". ") < told.index(f" of {asked} is")
    middle = needle(WORDS, seed=0, n_items=15, depth=0.5, n_tokens=500).clean.labels["key"].float() / 500
    assert (middle - 0.5).abs().max() < 0.05


def test_prompts_of_one_depth_are_a_cluster() -> None:
    prompts = needle(WORDS, seed=0, n_items=80, n_tokens=60)
    assert prompts.clusters is not None
    assert len(prompts.clusters.unique()) == 10
    assert needle(WORDS, seed=0, n_items=10, depth=0.3).clusters is None


def test_the_corrupt_value_stands_nowhere_else_and_hides_the_answer() -> None:
    prompts = needle(WORDS, seed=0, n_items=50)
    for item in range(50):
        assert changed_places(prompts, item) == [int(prompts.clean.labels["value"][item])]
        assert int(prompts.correct_ids[item, 0]) not in prompts.corrupt.ids[item]
        instead = prompts.corrupt.ids[item, prompts.clean.labels["value"][item]]
        assert instead in prompts.wrong_ids[item]
        assert instead not in prompts.clean.ids[item]


def test_the_corrupt_key_has_no_needle() -> None:
    prompts = needle(WORDS, seed=0, n_items=50, corrupt="key")
    for item in range(50):
        assert changed_places(prompts, item) == [int(prompts.clean.labels["question_key"][item])]
        length = int(prompts.clean.lengths[item])
        asked, values = solved(text_of(WORDS, prompts.corrupt.ids[item], length))
        assert asked not in values
        assert len(values) == 3


def test_what_follows_a_value_varies() -> None:
    following = words_at(needle(WORDS, seed=0, n_tokens=60), WORDS, "value_next")
    counts = np.unique(following, return_counts=True)[1]
    assert set(following) == {re.findall(r"\w+|[.,]", each)[0] for each in ENDINGS}
    assert counts.max() < 100


def test_values_are_words_that_filler_says_elsewhere_and_every_rival_is_a_wrong_answer() -> None:
    prompts = needle(WORDS, seed=0, n_items=120)
    of_kind = {*Words("evaluation").of("codes"), *Words("evaluation").of("nouns")}
    values, beside = set(answers(prompts, WORDS)), set()
    for text, answer, wrong_ids in zip(prompts.texts, answers(prompts, WORDS), prompts.wrong_ids, strict=True):
        said = {word for word in re.findall(r"\w+", text) if word in of_kind}
        assert said - {answer} <= {WORDS.tokenizer.decode(int(each)) for each in wrong_ids if each >= 0}
        beside |= said - set(solved(text)[1].values())
    assert len(values & beside) > 0.8 * len(values)


def test_copying_the_first_last_or_most_frequent_candidate_stays_near_chance() -> None:
    prompts = needle(WORDS, seed=1, n_items=400, n_tokens=60)
    assert prompts.facts["chance"]["answer_accuracy"] == 1 / 3
    for low, _ in copies_right(prompts).values():
        assert low <= 1 / 3


def test_words_that_are_no_single_tokens_are_counted_and_too_few_of_them_are_refused() -> None:
    dropped = needle(bpe_vocabulary("needle", 1000), seed=0, n_items=20).dropped
    assert dropped["nouns: not a single token"] > 0
    with pytest.raises(BadInput, match="single tokens"):
        needle(bpe_vocabulary("needle", 300), seed=0)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_needles": 1}, "needle.n_needles is 1: give a whole number from 2 to 8"),
        ({"n_tokens": 513}, "needle.n_tokens is 513: give a whole number from 1 to 512"),
        ({"n_tokens": 20}, "leaves no room: the needles and the question alone are"),
        ({"depth": 1.5}, "needle.depth is 1.5"),
        ({"corrupt": "order"}, "choose one of value, key"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        needle(WORDS, seed=0, **parameters)
