"""Verbatim short-term memory: a list of nouns, text between, and the list again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.encoding import encode, tokenizer_of
from mneme.filler import count_words, filler, training_length
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

CONDITIONS = ("repeat", "permute", "novel")
ENDS = ("word", "full")
_SHORTEST, _LONGEST = 3, 10
_FRAME = 16  # words and marks around the lists and the text between, with the first token


@dataclass(frozen=True)
class Lists:
    """The two lists and what stands between them, in tokens counted by `count`."""

    first: Sequence[str]
    second: Sequence[str]
    absent: Sequence[str]
    n_between: int
    count: Callable[[str], int] = count_words


@promptset(needs_tokenizer=True, source="Armeni, Honey, Linzen 2022; METHODS 9")
def verbatim_list(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    condition: str = "repeat",
    n_nouns: int = 5,
    n_between: int = 26,
    ends: str = "word",
) -> Promptset:
    """'Mary wrote down this list of words: river, stone, cloud. ... Then Mary read the list again: river,' -> stone.

    condition: list 2 is list 1 (`repeat`), its nouns in another order (`permute`), or other nouns (`novel`).
    n_between: tokens of the text between the lists, or less than a sentence fewer.
    ends: `word` cuts the prompt before a noun of list 2, never the first, which has only the cue; `full` tells the
    whole text and asks nothing, for surprisal. Each list is used in all its circular shifts, one prompt after the
    other, so that every noun visits every position; prompts of one list are a cluster.
    Answers (`word`): the noun that stands there in list 2. Wrong answers: the other nouns of list 1 and as many nouns
    that stand nowhere. The corrupt prompt has another noun at the answer's place in list 1, which makes that one the
    answer of a copier; `permute` and `novel` have none.
    Labels: list1_0 .. and end; with `word` and `repeat` also source, the answer's place in list 1; with `full` also
    list2_0 .. . Facts: condition, n_nouns, n_between, ends, split.
    Departs from METHODS 9: the text between is made of a word list and has no noun of the lists in it; lists are drawn
    at random, so there is no list of one category.
    Raises: BadInput for fewer than three nouns, a text between that the context has no room for, or where the tokenizer
    has too few single-token words.
    """
    place = "verbatim_list"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_nouns = whole_number(f"{place}.n_nouns", n_nouns, _SHORTEST)
    n_between = whole_number(f"{place}.n_between", n_between, 0, vocabulary.context - _FRAME - 4 * n_nouns)
    condition = one_of(f"{place}.condition", condition, CONDITIONS)
    ends = one_of(f"{place}.ends", ends, ENDS)
    words = words_for(vocabulary, place, split)
    tokenizer = tokenizer_of(vocabulary, place)
    rng = np.random.default_rng(seed)
    shifts: list[Lists] = []

    def draw() -> Scene:
        if not shifts:
            drawn = _lists(rng, words, condition, n_nouns)
            for shift in range(n_nouns):
                first, second = (each[shift:] + each[:shift] for each in drawn[:2])
                shifts.append(
                    Lists(first, second, drawn[2], n_between, lambda text: len(encode(tokenizer, f" {text}")))
                )
        return scene(rng, words, shifts.pop(), 1 + int(rng.integers(n_nouns - 1)) if ends == "word" else None)

    facts = {"condition": condition, "n_nouns": n_nouns, "n_between": n_between, "ends": ends, "split": split}
    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def scene(rng: np.random.Generator, words: Words, lists: Lists | None = None, at: int | None = 0) -> Scene:
    """One scene; its binding is list 1.

    Without `lists` 3 to 10 nouns are repeated after filler as `training_length` draws it. The questions are the nouns
    of list 2 from the noun `at` on; None tells all of list 2 and asks nothing.
    """
    if lists is None:
        lists = Lists(*_lists(rng, words, "repeat", int(rng.integers(_SHORTEST, _LONGEST + 1))), training_length(rng))
    first, second = list(lists.first), list(lists.second)
    name = words.draw(rng, "names", 1)[0]
    between = " ".join(filler(rng, words, lists.n_between, {*first, *second, *lists.absent, name}, lists.count))
    said = second if at is None else second[:at]

    def tell(first: list[str]) -> Told:
        list1 = _listed(first, "list1")
        list2 = _listed(said, "list2") if at is None else Told("".join(f"{each}, " for each in said).rstrip())
        parts = [Told(f"{name} wrote down this list of words:"), list1, Told(f". {between}".rstrip())]
        parts += [Told(f"Then {name} read the list again:"), list2, Told("." if at is None else "")]
        return joined(parts)

    context = tell(first)
    corrupt = None
    if at is not None and second == first:
        context = Told(context.text, {**context.spans, "source": context.spans[f"list1_{at}"]})
        corrupt = tell([*first[:at], lists.absent[0], *first[at + 1 :]])
    asked = [] if at is None else second[at:]
    return Scene(
        context=context,
        questions=tuple(
            Question(
                Told(""),
                answer=noun,
                wrong=tuple(each for each in (*first, *lists.absent) if each != noun),
                after="." if number == len(asked) - 1 else ",",
            )
            for number, noun in enumerate(asked)
        ),
        corrupt=corrupt,
        binding=tuple(first),
        cluster=" ".join(sorted(first)),
    )


def _lists(rng: np.random.Generator, words: Words, condition: str, n: int) -> tuple[list[str], list[str], list[str]]:
    """List 1, list 2, and as many nouns of neither."""
    drawn = words.first_allowed(lambda: words.draw(rng, "nouns", 3 * n), lambda each: [each[:n]])
    first, absent = drawn[:n], drawn[2 * n :]
    second = {"repeat": first, "permute": first, "novel": drawn[n : 2 * n]}[condition]
    while condition == "permute" and second == first:
        second = [first[each] for each in rng.permutation(n)]
    return first, second, absent


def _listed(nouns: Sequence[str], name: str) -> Told:
    slots = [f"{name}_{each}" for each in range(len(nouns))]
    return told(", ".join(f"{{{slot}}}" for slot in slots), **dict(zip(slots, nouns, strict=True)))
