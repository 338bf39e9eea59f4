"""Things in boxes: the text answers every question, and each place is asked as often as the others."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.promptsets.boxes import boxes, scene
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("boxes")


def contents(text: str) -> dict[str, str]:
    """What each box holds, in the order told."""
    return {label: thing for thing, label in re.findall(r"[Tt]he (\w+) is in Box (\w)", text)}


def test_a_scene_of_two_boxes_reads_like_the_paper() -> None:
    told = scene(np.random.default_rng(0), Words(), 2, asked=1)
    first, second = contents(told.context.text).items()
    assert told.binding == second
    asked = f"The {first[1]} is in Box {first[0]}, the {second[1]} is in Box {second[0]}. Box {second[0]} contains the"
    assert told.prompt.text == asked
    assert (told.questions[0].answer, told.questions[0].wrong) == (second[1], (first[1],))
    assert told.corrupt is not None
    assert told.corrupt.text == asked.replace(f"Box {second[0]} contains", f"Box {first[0]} contains")


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("boxes")], ids=["words", "bpe"])
def test_a_careful_reader_finds_every_answer_and_every_label(vocabulary) -> None:
    prompts = boxes(vocabulary, seed=0, n_items=60)
    named = {
        name: words_at(prompts, vocabulary, name)
        for name in (
            "thing",
            "label",
            "question_label",
            *(f"{part}_{at}" for part in ("thing", "label") for at in range(7)),
        )
    }
    for item, (text, answer) in enumerate(zip(prompts.texts, answers(prompts, vocabulary), strict=True)):
        inside, asked = contents(text), text.split()[-3]
        assert len(inside) == len(set(inside.values())) == 7
        assert (named["question_label"][item], named["label"][item], named["thing"][item]) == (
            asked,
            asked,
            inside[asked],
        )
        assert answer == inside[asked]
        assert {named[f"label_{at}"][item]: named[f"thing_{at}"][item] for at in range(7)} == inside


def test_a_training_document_asks_every_box_once_and_answers_right() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(100):
        told = scene(rng, words)
        inside = contents(told.context.text)
        assert {each.text.text.split()[1]: each.answer for each in told.questions} == inside
        assert all(words.allows(pair) for pair in inside.items())


def test_every_place_is_asked_as_often() -> None:
    prompts = boxes(WORDS, seed=0, n_items=210)
    places = Counter(list(contents(text)).index(text.split()[-3]) for text in prompts.texts)
    assert places == dict.fromkeys(range(7), 30)
    assert prompts.clusters is not None
    assert prompts.clusters.bincount().tolist() == [30] * 7


def test_copying_the_first_last_or_most_frequent_thing_stays_near_chance() -> None:
    prompts = boxes(WORDS, seed=0, n_items=400)
    for low, _ in copies_right(prompts).values():
        assert low <= 1 / 7
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("corrupt", ["other_box", "unused_label"])
def test_the_corrupt_prompt_asks_another_box_of_the_scene_or_none_of_it(corrupt: str) -> None:
    prompts = boxes(WORDS, seed=0, n_items=40, corrupt=corrupt)
    for item, text in enumerate(prompts.texts):
        assert changed_places(prompts, item) == [int(prompts.clean.labels["question_label"][item])]
        asked = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.clean.lengths[item])).split()[-3]
        assert (asked in contents(text)) == (corrupt == "other_box")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_boxes": 1}, "boxes.n_boxes is 1: give a whole number from 2 to 12"),
        ({"corrupt": "scene"}, "choose one of other_box, unused_label"),
        ({"n_items": 0}, "boxes.n_items is 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        boxes(WORDS, seed=0, **parameters)


def test_too_few_words_that_are_single_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="single tokens"):
        boxes(bpe_vocabulary("boxes", 300), seed=0)
