"""Multiple choice: the letter in front of the one option of the category, and no letter or place is favored."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.lexicon import CATEGORIES, LEXICON
from mneme.microworld.tokenizer import word_tokenizer, words_in
from mneme.promptset import Promptset, Vocabulary
from mneme.promptsets.multiple_choice import multiple_choice, scene
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("multiple_choice")


def made(**parameters: object) -> Promptset:
    return multiple_choice(WORDS, seed=0, **{"n_items": 200, **parameters})


def offered(text: str) -> dict[str, str]:
    """Letter -> option."""
    return dict(re.findall(r"\b([A-Z]) ?: (\w+)", text))


def solved(text: str) -> str:
    """The letter of the option that belongs to the category asked for last."""
    members = CATEGORIES[re.findall(r"Which one is an? (\w+)", text)[-1]]
    (letter,) = (letter for letter, option in offered(text).items() if option in members)
    return letter


def test_a_scene_reads_as_a_question_with_four_options() -> None:
    told = scene(np.random.default_rng(0), Words(), "first", 4)
    shape = r"Which one is an? (\w+)\? A: \w+ B: \w+ C: \w+ D: \w+ Answer:"
    asked = re.fullmatch(shape, told.prompt.text)
    assert asked is not None
    right = told.questions[0].answer
    assert offered(told.prompt.text)[right] in CATEGORIES[asked.group(1)]
    assert sorted((right, *told.questions[0].wrong)) == ["A", "B", "C", "D"]
    assert told.binding == (right, offered(told.prompt.text)[right])


def test_a_vowel_takes_its_article() -> None:
    texts = " ".join(made().texts or ())
    assert "is an animal?" in texts
    assert "is an organ?" in texts
    assert "is a tool?" in texts
    assert not re.search(r"is a [aeiou]|is an [^aeiou]", texts)


@pytest.mark.parametrize("letters", ["random", "first"])
@pytest.mark.parametrize("n_options", [2, 4, 6])
def test_the_answer_is_the_letter_of_the_only_fitting_option(letters: str, n_options: int) -> None:
    prompts = made(letters=letters, n_options=n_options, n_items=60)
    assert prompts.texts is not None
    assert [solved(text) for text in prompts.texts] == answers(prompts, WORDS)
    assert {len(offered(text)) for text in prompts.texts} == {n_options}
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / n_options)


def test_later_questions_of_a_scene_have_right_answers_too() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        told = scene(rng, Words("train"))
        for question in told.questions[1:]:
            assert solved(f"{told.context.text} {question.text.text}") == question.answer


def test_the_labels_point_at_their_words() -> None:
    prompts = made(n_items=60)
    assert prompts.texts is not None
    assert words_at(prompts, WORDS, "correct_letter") == answers(prompts, WORDS)
    options = [offered(text)[right] for text, right in zip(prompts.texts, answers(prompts, WORDS), strict=True)]
    assert words_at(prompts, WORDS, "correct_option") == options
    assert all(
        option in CATEGORIES[category]
        for category, option in zip(words_at(prompts, WORDS, "category"), options, strict=True)
    )
    for index in range(3):
        pairs = zip(*(words_at(prompts, WORDS, f"wrong_{each}_{index}") for each in ("letter", "option")), strict=True)
        assert all(offered(text)[letter] == option for text, (letter, option) in zip(prompts.texts, pairs, strict=True))


@pytest.mark.parametrize("letters", ["random", "first"])
def test_every_place_is_right_as_often(letters: str) -> None:
    prompts = made(letters=letters, n_items=400)
    assert prompts.texts is not None
    places = [list(offered(text)).index(solved(text)) for text in prompts.texts]
    for place in range(4):
        low, high = wilson(places.count(place), len(places))
        assert low < 1 / 4 < high


@pytest.mark.parametrize("letters", ["random", "first"])
def test_no_copying_of_a_letter_beats_a_guess(letters: str) -> None:
    assert all(low <= 1 / 4 for low, _ in copies_right(made(letters=letters, n_items=400)).values())


def test_corrupt_swaps_two_options_and_moves_the_answer_to_another_letter() -> None:
    prompts = made(n_items=100)
    assert prompts.corrupt is not None
    assert prompts.texts is not None
    for item, right in enumerate(answers(prompts, WORDS)):
        assert len(changed_places(prompts, item)) == 2
        other = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        assert solved(other) != right
        assert sorted(offered(other).values()) == sorted(offered(prompts.texts[item]).values())
        assert list(offered(other)) == list(offered(prompts.texts[item]))


def test_the_held_out_splits_share_no_option_and_no_random_letter() -> None:
    said = [set(words_in(" ".join(made(split=split).texts or ()))) for split in ("discovery", "evaluation")]
    options = {word for members in CATEGORIES.values() for word in members}
    assert not said[0] & said[1] & (options | set(LEXICON["labels"]) - {"A"})


def test_training_never_shows_an_option_under_a_letter_that_is_held_out() -> None:
    rng, words = np.random.default_rng(0), Words("train")
    for _ in range(200):
        assert all(words.allows(pair) for pair in offered(scene(rng, words).prompt.text).items())


def test_no_word_is_in_two_categories() -> None:
    words = [word for members in CATEGORIES.values() for word in members]
    assert len(set(words)) == len(words)


def test_words_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = multiple_choice(bpe_vocabulary("multiple_choice", vocab_size=510), seed=0, n_items=20)
    assert sum(count for reason, count in prompts.dropped.items() if "not a single token" in reason) > 0
    assert len(prompts) == 20


def test_more_prompts_than_can_be_told_are_refused() -> None:
    few = [word for members in CATEGORIES.values() for word in members[:4]]
    said = [*CATEGORIES, *words_in("Which one is a an Answer: A B C D E F ?")]
    tokenizer = word_tokenizer([*few, *said], 64)
    vocabulary = Vocabulary(len(tokenizer), 64, "native", 0, frozenset({0, 1, 2}), tokenizer)
    with pytest.raises(BadInput, match="distinct prompts are asked for"):
        multiple_choice(vocabulary, seed=0, n_items=80, n_options=2, letters="first")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_items": 0}, "multiple_choice.n_items is 0"),
        ({"letters": "greek"}, "multiple_choice.letters is 'greek': choose one of random, first"),
        ({"n_options": 7}, "multiple_choice.n_options is 7: give a whole number from 2 to 6"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**parameters)
