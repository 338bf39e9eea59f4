"""Documents are whole scenes in known words, their answers are marked, and their draw is a matter of the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from mneme.microworld.documents import (
    BEHAVIORS,
    INDUCTION,
    SIZES,
    Document,
    Library,
    rows_by_length,
    scene_of,
    world_words,
)
from mneme.microworld.tokenizer import SPECIALS, words_in
from mneme.words import Words


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, int]:
    return {word: index for index, word in enumerate([*SPECIALS, *world_words()])}


@pytest.mark.parametrize("behavior", [each for each in BEHAVIORS if each != INDUCTION])
def test_every_word_of_a_scene_is_in_the_micro_world_and_its_answers_are_marked(
    behavior: str, vocabulary: dict[str, int]
) -> None:
    names = {index: word for word, index in vocabulary.items()}
    rng, twin, library = np.random.default_rng(3), np.random.default_rng(3), Library(vocabulary, 511)
    source = Words("train", sizes=SIZES)
    for _ in range(200):
        document = library.of(behavior, rng)
        scene = scene_of(behavior)(twin, source)
        told = words_in(scene.document().text)[:511]
        assert [names[each] for each in document.ids] == told
        said = [names[each] for each, is_answer in zip(document.ids, document.is_answer, strict=True) if is_answer]
        assert said == [question.answer for question in scene.questions][: len(said)]
        assert len(said) == len(scene.questions) or len(told) == 511


def test_a_repeated_list_is_answered_from_the_second_token_of_the_second_copy_on(vocabulary: dict[str, int]) -> None:
    document = Library(vocabulary, 511).of(INDUCTION, np.random.default_rng(0))
    period = len(document.ids) - 1 - (len(document.ids) - 2 - document.ids[1:].index(document.ids[0]))
    assert document.ids[:period] == document.ids[period : 2 * period]
    assert len(set(document.ids)) == period
    assert not any(document.is_answer[: period + 1])
    assert all(document.is_answer[period + 1 :])


def test_the_same_seed_draws_the_same_documents_and_none_is_too_long(vocabulary: dict[str, int]) -> None:
    first, second = (
        [Library(vocabulary, 200).draw(rng, dict.fromkeys(BEHAVIORS, 1.0)) for _ in range(200)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first == second
    assert max(len(each.ids) for each in first) <= 200


def test_groups_of_like_length_hold_every_document_once() -> None:
    documents = [Document([1] * n, [False] * n) for n in (10, 100, 11, 13, 12, 90)]
    groups = rows_by_length(documents)
    assert [[len(each.ids) for each in group] for group in groups] == [[10, 11, 12], [13], [90, 100]]
