"""Multiple choice: the letter of the option that answers."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.bindings import bound
from mneme.lexicon import CATEGORIES
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

LETTERS = ("random", "first")
_FIRST = "ABCDEF"
_CATEGORY_OF = {word: category for category, members in CATEGORIES.items() for word in members}
_ASKED = "Which one is {article} {category}?"


@promptset(needs_tokenizer=True, source="Lieberum et al. 2023; METHODS 11")
def multiple_choice(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    letters: str = "random",
    n_options: int = 4,
) -> Promptset:
    """'Which one is a fruit? A: hammer B: apple C: dog D: iron Answer:' -> B.

    letters: `random` letters of the alphabet in any order, so that a letter says nothing about its place; `first` takes
    A, B, C, ... in order, as in the paper. The right option stands at every place equally often.
    Corrupt: the right option and another one trade places, so that the answer is the other's letter.
    Labels: category, correct_letter, correct_option, wrong_letter_0.., wrong_option_0.., end.
    Facts: letters, n_options, split. Wrong answers: the other letters offered.
    Departs from the paper: one-word options of as many categories, on one line; the paper asks exam questions.
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "multiple_choice"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    letters = one_of(f"{place}.letters", letters, LETTERS)
    n_options = whole_number(f"{place}.n_options", n_options, 2, len(CATEGORIES))
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"letters": letters, "n_options": n_options, "split": split}
    return promptset_of_scenes(
        SceneReader(vocabulary, place), lambda: scene(rng, words, letters, n_options), n_items, facts, words.rejected
    )


def scene(rng: np.random.Generator, words: Words, letters: str = "random", n_options: int | None = None) -> Scene:
    """One scene; None draws the number of options. Its binding is the right letter with its option.

    Later questions ask for other categories among the same options, as far as the split allows.
    """
    n_options = int(rng.integers(2, len(CATEGORIES) + 1)) if n_options is None else n_options
    asked = int(rng.integers(n_options))
    offered, options = bound(rng, words, lambda: _draw(rng, words, letters, n_options), asked)
    categories = [_CATEGORY_OF[option] for option in options]
    other = (asked + int(rng.integers(1, n_options))) % n_options
    traded = list(options)
    traded[asked], traded[other] = options[other], options[asked]
    context = joined([_asking(categories[asked]), _offer(offered, options, asked)])
    questions = [_question(Told("Answer:"), offered, asked)]
    for index in rng.permutation(n_options):
        if index != asked and words.allows((offered[index], options[index])):
            text = f"{_asking(categories[index]).text} Answer:"
            questions.append(_question(Told(text), offered, int(index)))
    return Scene(
        context=context,
        questions=tuple(questions),
        corrupt=joined([_asking(categories[asked]), _offer(offered, traded, asked), Told("Answer:")]),
        binding=(offered[asked], options[asked]),
        cluster=f"{categories[asked]}.{asked}",
    )


def _draw(rng: np.random.Generator, words: Words, letters: str, n: int) -> list[list[str]]:
    """`n` letters, and one word from each of as many categories."""
    offered = words.draw(rng, "labels", n) if letters == "random" else list(_FIRST[:n])
    return [offered, [words.draw(rng, f"{category}s", 1)[0] for category in rng.permutation(list(CATEGORIES))[:n]]]


def _asking(category: str) -> Told:
    article = "an" if category[0] in "aeiou" else "a"
    return told(_ASKED.replace("{article}", article), category=category)


def _offer(offered: list[str], options: list[str], asked: int) -> Told:
    """'A: hammer B: apple', each letter and option named by whether it is the right one."""
    parts: list[Told] = []
    for index, (letter, option) in enumerate(zip(offered, options, strict=True)):
        name = "correct_{}" if index == asked else f"wrong_{{}}_{index - (index > asked)}"
        slots = {name.format("letter"): letter, name.format("option"): option}
        parts.append(told(": ".join(f"{{{slot}}}" for slot in slots), **slots))
    return joined(parts)


def _question(text: Told, offered: list[str], index: int) -> Question:
    return Question(text, answer=offered[index], wrong=tuple(each for each in offered if each != offered[index]))
