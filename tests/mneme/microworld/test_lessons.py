"""Which lesson a step belongs to, and what each of the three shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mneme.microworld.documents import BEHAVIORS, Document, Library
from mneme.microworld.lessons import RECALL, WHOLE, Lessons
from mneme.microworld.tokenizer import SPECIALS

LESSONS = Lessons(copying_ends=400, recalling_ends=900)


@pytest.fixture(scope="module")
def library() -> Library:
    """A library of words that no scene knows: lists are all it can show."""
    return Library({word: index for index, word in enumerate([*SPECIALS, *map(str, range(300))])}, 127)


@pytest.mark.parametrize(
    ("step", "is_copying", "begun"),
    [(1, True, 0), (400, True, 0), (401, False, 400), (900, False, 400), (901, False, 900), (2300, False, 900)],
)
def test_lessons_change_after_the_steps_they_name(step: int, is_copying: bool, begun: int) -> None:
    assert (LESSONS.is_copying(step), LESSONS.first_step(step)) == (is_copying, begun)


def test_a_lesson_of_no_steps_is_left_out() -> None:
    lessons = Lessons(copying_ends=0, recalling_ends=0)
    assert (lessons.is_copying(1), lessons.first_step(1)) == (False, 0)


def test_both_later_lessons_show_every_behavior() -> None:
    assert set(RECALL) == set(WHOLE) == set(BEHAVIORS)
    assert min(*RECALL.values(), *WHOLE.values()) > 0


def test_the_first_lesson_repeats_few_words_with_a_period_of_5_to_32(library: Library) -> None:
    few = set(library.few_words(128))
    rng = np.random.default_rng(0)
    periods = []
    for _ in range(300):
        document = LESSONS.draw(library, rng, 400)
        period = len(set(document.ids))
        assert document.ids == (document.ids[:period] * 13)[:64]
        assert document.is_answer.count(True) == 64 - period - 1
        assert set(document.ids) <= few
        periods.append(period)
    assert (min(periods), max(periods)) == (5, 32)


class Noting(Library):
    """Notes how often each behavior was to be drawn."""

    asked: Mapping[str, float] | None = None

    def draw(self, _rng: np.random.Generator, mixture: Mapping[str, float]) -> Document:
        self.asked = mixture
        return Document([], [])


@pytest.mark.parametrize(("step", "mixture"), [(401, RECALL), (900, RECALL), (901, WHOLE)])
def test_the_second_lesson_recalls_and_the_third_shows_the_whole(step: int, mixture: Mapping[str, float]) -> None:
    library = Noting({}, 127)
    LESSONS.draw(library, np.random.default_rng(0), step)
    assert library.asked is mixture
