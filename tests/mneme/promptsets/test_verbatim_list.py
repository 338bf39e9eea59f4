"""Lists of nouns read again: every noun visits every position, and the surprisals lie where the labels say."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.probes.repeat_surprisal import repeat_surprisal
from mneme.promptsets.verbatim_list import Lists, scene, verbatim_list
from mneme.scores import TokenScores
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("verbatim_list")


def lists_in(text: str) -> tuple[list[str], str, list[str]]:
    """List 1, the text between, and as much of list 2 as is told."""
    first, between, second = re.fullmatch(
        r"\w+ wrote down this list of words: ([\w, ]+)\.(.*) Then \w+ read the list again:([\w, ]*)\.?", text
    ).groups()
    return first.split(", "), between.strip(), re.findall(r"\w+", second)


def test_three_nouns_are_told_asked_and_answered_in_order() -> None:
    nouns = ("river", "stone", "cloud")
    told = scene(np.random.default_rng(0), Words(), Lists(nouns, nouns, ("bread", "milk", "hill"), 0), at=1)
    name = told.context.text.split()[0]
    assert told.prompt.text == (
        f"{name} wrote down this list of words: river, stone, cloud. Then {name} read the list again: river,"
    )
    assert [each.answer for each in told.questions] == ["stone", "cloud"]
    assert told.questions[0].wrong == ("river", "cloud", "bread", "milk", "hill")
    assert told.document().text == f"{told.prompt.text} stone, cloud."
    assert told.corrupt is not None
    assert told.corrupt.text == told.prompt.text.replace("stone", "bread")


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("verbatim_list")], ids=["words", "bpe"])
@pytest.mark.parametrize("n_nouns", [3, 5, 7])
def test_a_copier_finds_every_answer_of_a_repeated_list(vocabulary, n_nouns: int) -> None:
    prompts = verbatim_list(vocabulary, seed=0, n_items=40, n_nouns=n_nouns)
    sources = words_at(prompts, vocabulary, "source")
    for item, (text, answer) in enumerate(zip(prompts.texts, answers(prompts, vocabulary), strict=True)):
        first, _, again = lists_in(text)
        assert again
        assert again == first[: len(again)]
        assert answer == sources[item] == first[len(again)]
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / (2 * n_nouns))


def test_every_noun_visits_every_position_and_the_lists_are_clusters() -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=60, n_nouns=5, ends="full")
    places = defaultdict(set)
    for text, cluster in zip(prompts.texts, prompts.clusters.tolist(), strict=True):
        for place, noun in enumerate(lists_in(text)[0]):
            places[cluster, noun].add(place)
    assert len(places) == 12 * 5
    assert all(visited == {0, 1, 2, 3, 4} for visited in places.values())


@pytest.mark.parametrize("condition", ["repeat", "permute", "novel"])
def test_the_whole_text_names_both_lists_and_asks_nothing(condition: str) -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=30, condition=condition, ends="full")
    assert prompts.correct_ids is None
    assert prompts.wrong_ids is None
    assert prompts.corrupt is None
    assert "chance" not in prompts.facts
    named = [[words_at(prompts, WORDS, f"list{number}_{at}") for at in range(5)] for number in (1, 2)]
    for item, text in enumerate(prompts.texts):
        first, between, second = lists_in(text)
        assert [[each[item] for each in column] for column in named] == [first, second]
        assert len(set(first)) == len(set(second)) == 5
        assert not {*first, *second} & set(re.findall(r"\w+", between))
        assert (first == second) == (condition == "repeat")
        assert len(set(first) & set(second)) == (0 if condition == "novel" else 5)


@pytest.mark.parametrize("condition", ["permute", "novel"])
def test_the_control_conditions_ask_the_noun_that_stands_in_list_2(condition: str) -> None:
    words, controls = (
        verbatim_list(WORDS, seed=0, n_items=20, condition=condition, ends=ends) for ends in ("word", "full")
    )
    assert words.corrupt is None
    assert "source" not in words.clean.labels
    for text, answer in zip(words.texts, answers(words, WORDS), strict=True):
        first, _, again = lists_in(text)
        assert (answer in first) == (condition == "permute")
        assert answer not in again
    assert len(controls) == 20


@pytest.mark.parametrize("n_between", [0, 26, 99, 400])
def test_the_text_between_is_as_long_as_asked_but_for_less_than_a_sentence(n_between: int) -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=10, n_between=n_between)
    for text in prompts.texts:
        n_words = len(re.findall(r"\w+|[.,]", lists_in(text)[1]))
        assert n_between - 14 < n_words <= n_between


def test_the_corrupt_list_has_a_noun_of_nowhere_in_the_answers_place() -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=40)
    for item in range(40):
        source = int(prompts.clean.labels["source"][item])
        assert changed_places(prompts, item) == [source]
        assert prompts.correct_ids[item, 0] not in prompts.corrupt.ids[item]
        assert prompts.corrupt.ids[item, source] in prompts.wrong_ids[item]
        assert prompts.corrupt.ids[item, source] not in prompts.clean.ids[item]


def test_half_of_the_wrong_answers_stand_in_the_list_and_half_nowhere() -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=40, n_nouns=7)
    for text, wrong in zip(prompts.texts, prompts.wrong_ids, strict=True):
        names = [WORDS.tokenizer.decode(int(each)) for each in wrong]
        inside = [each for each in names if each in re.findall(r"\w+", text)]
        assert len(names) == 13
        assert set(inside) < set(lists_in(text)[0])
        assert len(inside) == 6


def test_copying_the_first_last_or_most_frequent_noun_stays_near_chance() -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=400, n_nouns=5)
    for low, _ in copies_right(prompts).values():
        assert low <= 1 / 4  # four nouns can be the answer


def test_a_training_document_reads_the_whole_list_again() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(100):
        told = scene(rng, words)
        first, between, second = lists_in(told.document().text)
        assert first == second
        assert [each.answer for each in told.questions] == first
        assert not set(first) & set(re.findall(r"\w+", between))


def test_surprisal_is_read_at_the_nouns_of_both_lists() -> None:
    prompts = verbatim_list(WORDS, seed=0, n_items=12, n_nouns=3, ends="full")
    bits = torch.full(prompts.clean.ids.shape, 99.0)
    for name, values in (("list1", (50, 10, 10)), ("list2", (50, 1, 3))):
        for at, value in enumerate(values):
            bits[torch.arange(12), prompts.clean.labels[f"{name}_{at}"] - 1] = float(value)
    scores = TokenScores(log_prob=-bits * np.log(2), is_top1=torch.zeros_like(bits, dtype=torch.bool))
    assert repeat_surprisal(scores, prompts).tolist() == pytest.approx([20.0] * 12)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_nouns": 2}, "verbatim_list.n_nouns is 2: give a whole number of at least 3"),
        ({"n_nouns": 20}, "60 distinct nouns are asked for"),
        ({"condition": "same"}, "choose one of repeat, permute, novel"),
        ({"ends": "half"}, "choose one of word, full"),
        ({"n_between": 477}, "verbatim_list.n_between is 477: give a whole number from 0 to 476"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        verbatim_list(word_vocabulary("verbatim_list"), seed=0, **parameters)


def test_too_few_words_that_are_single_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="single tokens"):
        verbatim_list(bpe_vocabulary("verbatim_list", 300), seed=0)
