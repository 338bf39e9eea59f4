"""Greater-than: a war that began in 1732 ended in 17.., in a year after 32."""

from __future__ import annotations

from functools import partial

import numpy as np

from mneme.arguments import whole_number
from mneme.lexicon import LEXICON
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, told
from mneme.words import Words, words_for

YEARS = LEXICON["years"]
CORRUPT_YEAR = "01"
_FIRST_YEARS = {"train": YEARS[2:99], "discovery": YEARS[2:99:2], "evaluation": YEARS[3:99:2]}
_TEMPLATE = "The {event} lasted from the year {century}{year} to the year {century_again}"
_BESIDE = ". The {event} was in the year {century}{year}."
_MOST_QUESTIONS = 4


@promptset(needs_tokenizer=True, source="Hanna, Liu & Variengien 2023; METHODS 11")
def greater_than(vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation") -> Promptset:
    """'The war lasted from the year 1732 to the year 17' -> any of 33 .. 99; wrong are 00 .. 32.

    First years run from 02 to 98, each as likely as the others of its split (`discovery` and `evaluation` take every
    second one). Read with `probability_difference` and `set_accuracy`: the best of many answers says little, and a
    model that always says 99 is right, so compare with the corrupt prompts, after which it says the same.
    Training documents tell as many early years beside the answers as answers are late, so that which years are
    frequent helps nobody.
    Corrupt: the first year is 01, so that nearly every end is right.
    Labels: event, century, year, century_again (the last token, like end). The facts say the split.
    Departs from METHODS 11: about thirty events, not 120, and from 02 to 98 whatever years a tokenizer can cut in
    two; a year that is one token is a reject. A tokenizer that cuts years by digits has no such prompts.
    Raises: BadInput where years are not a token for the century and one for the year, or n_items is too large.
    """
    place = "greater_than"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    reader = SceneReader(vocabulary, place)
    return promptset_of_scenes(
        reader, lambda: scene(rng, words, n_questions=1), n_items, {"split": split}, words.rejected
    )


def scene(rng: np.random.Generator, words: Words, n_questions: int | None = None) -> Scene:
    """Sentences on different events; the binding is the event with its first year."""
    n_questions = int(rng.integers(1, _MOST_QUESTIONS + 1)) if n_questions is None else n_questions
    drawn: list[tuple[str, str, str]] = []
    for _ in range(n_questions):
        but = [event for event, _, _ in drawn]
        drawn.append(words.first_allowed(partial(_drawn, rng, words, but), lambda each: [each]))
    event, century, _ = drawn[0]
    return Scene(
        context=Told(""),
        questions=tuple(_asked(rng, words, *each) for each in drawn),
        corrupt=_text(event, century, CORRUPT_YEAR),
        binding=drawn[0],
    )


def _drawn(rng: np.random.Generator, words: Words, but: list[str]) -> tuple[str, str, str]:
    """An event, a century and a year in it."""
    event = words.draw(rng, "events", 1, but=but)[0]
    years = _FIRST_YEARS[words.split]  # not by kind: as the end of a number a year is another token than as a word
    return event, words.draw(rng, "centuries", 1)[0], years[int(rng.integers(len(years)))]


def _asked(rng: np.random.Generator, words: Words, event: str, century: str, year: str) -> Question:
    """The sentence on one event; the end that is said is any later year, all as likely."""
    split = int(year) + 1
    return Question(
        _text(event, century, year),
        YEARS[int(rng.integers(split, len(YEARS)))],
        wrong=YEARS[:split],
        correct=YEARS[split:],
        glue="",
        after=_beside(rng, words),
    )


def _beside(rng: np.random.Generator, words: Words) -> str:
    """A sentence on another event, in a year that is as early as answers are late."""
    event, century, year = _drawn(rng, words, [])
    return _BESIDE.format(event=event, century=century, year=YEARS[-1 - int(rng.integers(int(year) + 1, len(YEARS)))])


def _text(event: str, century: str, year: str) -> Told:
    return told(_TEMPLATE, event=event, century=century, year=year, century_again=century)
