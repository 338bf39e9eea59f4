"""Arithmetic: the result of two numbers."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import Rejected
from mneme.stories import Scene, Told, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words
from mneme.words import SPLITS

OPERATORS = {"plus": "+", "minus": "-", "times": "x", "over": "/"}
FORMS = ("symbols", "words")
ANSWERS = ("whole", "first_digit")
CORRUPTIONS = ("operand", "operator")
_MOST_OPERAND = 99

Numbers = tuple[int, int]


@promptset(needs_tokenizer=True, source="Zhang et al. 2024; METHODS 11")
def arithmetic(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    operator: str = "plus",
    form: str = "symbols",
    answer: str = "whole",
    corrupt: str = "operand",
    most: int = _MOST_OPERAND,
) -> Promptset:
    """'12 + 5 =' -> 17; wrong is the result of the corrupt prompt.

    operator: plus, minus, times or over; operands run from 1 to `most`, and results from 0 to 99 without a remainder.
    form: `symbols` as above, `words` '12 plus 5 is'. answer: `whole` takes the result as one token; `first_digit`, for
    tokenizers that cut numbers by digits, asks '12+5=' for its first digit, which is another measure and named so.
    corrupt: `operand` changes one of the two numbers; `operator` changes the operator, which needs one that gives
    another result for the same numbers. `discovery` and `evaluation` share no pair of numbers, in either order.
    Labels: first, operator, second, end. Facts: operator, form, answer, corrupt, most, split.
    Rejected: pairs whose right result is seen in the corrupt prompt, but for `first_digit`, where digits are
    everywhere, and what is no single token.
    Departs from METHODS 11: operands are never in words; the answer that is wrong is one, that of the corrupt prompt.
    Raises: BadInput where results are no single tokens, or n_items exceeds what can be asked.
    """
    place = "arithmetic"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    operator = one_of(f"{place}.operator", operator, tuple(OPERATORS))
    form = one_of(f"{place}.form", form, FORMS)
    answer = one_of(f"{place}.answer", answer, ANSWERS)
    corrupt = one_of(f"{place}.corrupt", corrupt, CORRUPTIONS)
    if answer == "first_digit" and form == "words":
        raise BadInput(f"{place}.answer is 'first_digit', which a word does not stand right before: give form: symbols")
    most = whole_number(f"{place}.most", most, 2, _MOST_OPERAND)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"operator": operator, "form": form, "answer": answer, "corrupt": corrupt, "most": most, "split": split}

    def draw() -> Scene:
        return told_pair(rng, words, operator, form, answer, corrupt, most)

    reader = PairReader(vocabulary, place, is_hidden=answer == "whole")
    return promptset_of_pairs(reader, draw, n_items, facts, words)


def told_pair(  # noqa: PLR0913  the parameters of the generator
    rng: np.random.Generator,
    words: TaskWords,
    operator: str = "plus",
    form: str = "symbols",
    answer: str = "whole",
    corrupt: str = "operand",
    most: int = _MOST_OPERAND,
) -> Scene:
    """A sum and its counterpart, whose answers differ; raises Rejected where none is found."""

    known = pairs_of(operator, words.split, most)
    numbers = known[int(rng.integers(len(known)))]
    other_operator, others = operator, numbers
    if corrupt == "operand":
        others = _other_numbers(rng, known, numbers)
    else:
        names = [each for each in OPERATORS if each != operator and result(each, *numbers) is not None]
        other_operator = names[int(rng.integers(len(names)))] if names else operator
    right, wrong = (_said(*each, answer) for each in ((operator, numbers), (other_operator, others)))
    if right == wrong:
        raise Rejected("the clean and the corrupt result are the same")
    return pair(
        _text(operator, numbers, form, answer),
        _text(other_operator, others, form, answer),
        (right,),
        (wrong,),
        cluster="",
        glue=" " if answer == "whole" else "",
    )


def result(operator: str, first: int, second: int) -> int | None:
    """The result where it is a whole number from 0 to 99, or None."""
    if operator == "over":
        return first // second if first % second == 0 else None
    found = {"plus": first + second, "minus": first - second, "times": first * second}[operator]
    return found if 0 <= found <= _MOST_OPERAND else None


@cache
def pairs_of(operator: str, split: str, most: int) -> tuple[Numbers, ...]:
    """The pairs of numbers up to `most` that an operator has a result for, of one split."""
    numbers = range(1, most + 1)
    return tuple(
        (first, second)
        for first in numbers
        for second in numbers
        if result(operator, first, second) is not None and split in ("train", _split_of(first, second))
    )


def _split_of(first: int, second: int) -> str:
    digest = hashlib.sha256(f"{min(first, second)}|{max(first, second)}".encode()).digest()
    return SPLITS[1 + digest[0] % 2]


def _other_numbers(rng: np.random.Generator, known: tuple[Numbers, ...], numbers: Numbers) -> Numbers:
    """A pair with one of the two numbers changed; the same where there is none."""
    kept = int(rng.integers(2))
    others = [each for each in known if each[kept] == numbers[kept] and each != numbers]
    return others[int(rng.integers(len(others)))] if others else numbers


def _said(operator: str, numbers: Numbers, answer: str) -> str:
    """The answer as it is written, of numbers that have one."""
    text = str(result(operator, *numbers))
    return text if answer == "whole" else text[0]


def _text(operator: str, numbers: Numbers, form: str, answer: str) -> Told:
    spoken = operator if form == "words" else OPERATORS[operator]
    equals = "is" if form == "words" else "="
    glue = "" if answer == "first_digit" and form == "symbols" else " "
    slots = {"first": str(numbers[0]), "operator": spoken, "second": str(numbers[1])}
    return told(glue.join(["{first}", "{operator}", "{second}", equals]), **slots)
