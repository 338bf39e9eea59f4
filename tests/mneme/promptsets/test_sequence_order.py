"""Sequence order: the answer follows from the story, and neither the place nor the order of an option gives it away."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.microworld.tokenizer import words_in
from mneme.promptset import Promptset
from mneme.promptsets.sequence_order import scene, sequence_order
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("sequence_order")


def made(**parameters: object) -> Promptset:
    return sequence_order(WORDS, seed=0, **{"n_items": 200, **parameters})


def events(text: str) -> list[str]:
    return re.findall(r"\w+ (?:saw|drew|painted|watched|liked) the (\w+)", text)


def asked(text: str) -> tuple[str, str, str]:
    """first or last, and the two options in the order in which they are offered; the last question of the text."""
    found = re.findall(r"Which came (first|last) ?, the (\w+) or the (\w+)", text)[-1]
    return found[0], found[1], found[2]


def solved(text: str) -> str:
    which, *options = asked(text)
    return sorted(options, key=events(text).index)[0 if which == "first" else 1]


def test_a_scene_is_a_story_and_its_question() -> None:
    told = scene(np.random.default_rng(0), Words(), 3, "first")
    name = told.prompt.text.split()[0]
    a, b, c = events(told.prompt.text)
    verb = "(?:saw|drew|painted|watched|liked)"
    story = rf"{name} {verb} the {a}\. Then {name} {verb} the {b}\. Then {name} {verb} the {c}\."
    assert re.fullmatch(story + r" Which came first, the \w+ or the \w+\? The", told.prompt.text)
    assert told.questions[0].answer == solved(told.prompt.text)
    assert set(told.binding) == {told.questions[0].answer, *told.questions[0].wrong}


@pytest.mark.parametrize("which", ["mixed", "first", "last"])
def test_the_answer_follows_from_the_story(which: str) -> None:
    prompts = made(asked=which, n_items=100)
    assert prompts.texts is not None
    assert [solved(text) for text in prompts.texts] == answers(prompts, WORDS)
    assert {asked(text)[0] for text in prompts.texts} == ({"first", "last"} if which == "mixed" else {which})


def test_later_questions_of_a_scene_have_right_answers_too() -> None:
    rng, n_questions = np.random.default_rng(0), 0
    for _ in range(100):
        told = scene(rng, Words("train"))
        n_questions += len(told.questions)
        for question in told.questions:
            assert solved(f"{told.context.text} {question.text.text}") == question.answer
    assert n_questions > 150


def test_the_labels_point_at_their_words() -> None:
    prompts = made(n_items=60)
    assert prompts.texts is not None
    labels = prompts.clean.labels
    assert bool((labels["earlier"] < labels["later"]).all())
    assert bool((labels["later"] < labels["option_0"]).all())
    options = list(zip(*(words_at(prompts, WORDS, f"option_{each}") for each in (0, 1)), strict=True))
    assert options == [asked(text)[1:] for text in prompts.texts]
    for pair, found in zip(
        options, zip(*(words_at(prompts, WORDS, each) for each in ("earlier", "later")), strict=True), strict=True
    ):
        assert set(pair) == set(found)
    assert words_at(prompts, WORDS, "asked") == [asked(text)[0] for text in prompts.texts]
    assert set(words_at(prompts, WORDS, "end")) == {"The"}


def test_each_story_is_asked_in_both_orders_and_is_one_cluster() -> None:
    prompts = made()
    assert prompts.texts is not None
    assert prompts.clusters is not None
    assert torch.equal(prompts.clusters, torch.arange(200) // 2)
    for one, other in zip(prompts.texts[::2], prompts.texts[1::2], strict=True):
        assert one.split(" Which")[0] == other.split(" Which")[0]
        which, first, second = asked(one)
        assert asked(other) == (which, second, first)


def test_first_and_last_are_asked_as_often() -> None:
    texts = made(n_items=800).texts
    assert texts is not None
    count = sum(asked(text)[0] == "first" for text in texts[::2])
    low, high = wilson(count, 400)
    assert low < 0.5 < high


def test_no_copying_of_an_event_beats_a_guess() -> None:
    assert all(low <= 0.5 for low, _ in copies_right(made(n_items=400)).values())


def test_asking_for_the_first_alone_is_answered_by_copying_the_first() -> None:
    assert copies_right(made(n_items=100, asked="first"))["first"][1] == pytest.approx(1.0)


def test_the_offered_pair_lies_anywhere_in_the_story() -> None:
    texts = made(n_items=400).texts
    assert texts is not None
    pairs = {tuple(sorted(events(text).index(each) for each in asked(text)[1:])) for text in texts}
    assert pairs == {(first, second) for second in range(5) for first in range(second)}


@pytest.mark.parametrize(("corrupt", "n_changed"), [("swap", 2), ("asked", 1)])
def test_corrupt_turns_the_answer_round(corrupt: str, n_changed: int) -> None:
    prompts = made(corrupt=corrupt, n_items=100)
    assert prompts.corrupt is not None
    for item, right in enumerate(answers(prompts, WORDS)):
        assert len(changed_places(prompts, item)) == n_changed
        other = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        assert solved(other) != right
        assert asked(other)[1:] == asked(prompts.texts[item])[1:]  # type: ignore[index]


def test_the_held_out_splits_share_no_event_or_name() -> None:
    said = [set(words_in(" ".join(made(split=split).texts or ()))) for split in ("discovery", "evaluation")]
    assert not said[0] & said[1] & {*LEXICON["nouns"], *LEXICON["names"]}


def test_words_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = sequence_order(bpe_vocabulary("sequence_order", vocab_size=620), seed=0, n_items=20)
    assert prompts.dropped["nouns: not a single token"] > 0
    assert len(prompts) == 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_items": 0}, "sequence_order.n_items is 0"),
        ({"n_events": 1}, "sequence_order.n_events is 1: give a whole number from 2 to 12"),
        ({"asked": "middle"}, "sequence_order.asked is 'middle': choose one of mixed, first, last"),
        ({"corrupt": "none"}, "sequence_order.corrupt is 'none': choose one of swap, asked"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**parameters)
