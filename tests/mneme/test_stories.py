"""Texts know where their words stand."""

from __future__ import annotations

import pytest

from mneme.stories import Question, Scene, Told, joined, told


def cut(text: Told, name: str) -> str:
    start, end = text.spans[name]
    return text.text[start:end]


def test_a_filled_slot_is_found_where_it_stands() -> None:
    text = told("Then, {io} and {s1} left.", io="Mary", s1="John")
    assert text.text == "Then, Mary and John left."
    assert (cut(text, "io"), cut(text, "s1")) == ("Mary", "John")


def test_joined_parts_keep_their_places_and_have_no_space_before_punctuation() -> None:
    text = joined([told("{a} b", a="x"), Told(""), told(". {c}", c="y"), Told("!")])
    assert text.text == "x b. y!"
    assert (cut(text, "a"), cut(text, "c")) == ("x", "y")


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        told("{a} {a}", a="x")
    with pytest.raises(ValueError, match="two parts"):
        joined([told("{a}", a="x"), told("{a}", a="y")])


def test_a_document_says_every_answer_and_the_prompt_only_asks_the_first() -> None:
    scene = Scene(
        told("The year is 17{year}.", year="32"),
        (
            Question(told("It ended in {century}", century="17"), "33", ("31",), glue=""),
            Question(Told("Who won?"), "Mary", ("John",)),
        ),
    )
    assert scene.prompt.text == "The year is 1732. It ended in 17"
    document = scene.document()
    assert document.text == "The year is 1732. It ended in 1733. Who won? Mary."
    assert (cut(document, "answer_0"), cut(document, "answer_1")) == ("33", "Mary")


def test_a_question_accepts_its_answer_unless_it_lists_more() -> None:
    assert Question(Told("x"), "a", ("b",)).accepted == ("a",)
    assert Question(Told("x"), "a", ("b",), correct=("a", "c")).accepted == ("a", "c")
