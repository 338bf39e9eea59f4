"""Negative polarity: 'any' and 'ever' need a 'no' that stands above them."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words

ITEMS = ("any", "ever", "mixed")
_LICENSED, _OTHERS = {"any": "any", "ever": "ever"}, {"any": "some", "ever": "never"}
_ENDS = {"any": "has had", "ever": "has"}
_TEMPLATE = "{determiner} {subject} that {verb} {inner} {attractor} "


@promptset(needs_tokenizer=True, source="Marvin & Linzen 2018; METHODS 11")
def npi(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation", item: str = "mixed"
) -> Promptset:
    """'No author that liked the senators has had' -> any, and 'The author that liked no senators has had' -> some.

    item: `any` against some after 'has had', `ever` against never after 'has', `mixed` draws one of the two. The
    sentence begins with No or The, each half of the time, and independently of that the object of the relative clause
    has no or the, which licenses nothing.
    Corrupt: the sentence begins with the other of the two. Labels: determiner, subject, inner, attractor, end.
    Conditions: is_licensed, inner_no. Facts: item, split.
    Raises: BadInput where the tokenizer has too few nouns as single tokens in both numbers, or n_items is too large.
    """
    place = "npi"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    item = one_of(f"{place}.item", item, ITEMS)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    reader, facts = PairReader(vocabulary, place), {"item": item, "split": split}
    return promptset_of_pairs(reader, lambda: told_pair(rng, words, item), n_items, facts, words)


def told_pair(rng: np.random.Generator, words: TaskWords, item: str = "mixed") -> Scene:
    """A sentence and the same with the other determiner."""
    item = ITEMS[int(rng.integers(2))] if item == "mixed" else item
    is_licensed, is_inner = (bool(each) for each in rng.integers(2, size=2))
    subject, attractor = (noun.split("/") for noun in words.draw(rng, "counted nouns", 2))
    slots = {"subject": subject[0], "attractor": attractor[1], "inner": "no" if is_inner else "the"}
    slots["verb"] = words.draw(rng, "feelings", 1)[0]
    clean, corrupt = (
        told(_TEMPLATE + _ENDS[item], determiner="No" if licensed else "The", **slots)
        for licensed in (is_licensed, not is_licensed)
    )
    answers = (_LICENSED[item], _OTHERS[item])[:: 1 if is_licensed else -1]
    return pair(
        clean,
        corrupt,
        answers[:1],
        answers[1:],
        cluster=f"{item}.{is_licensed}.{is_inner}.{slots['verb']}",
        conditions={"is_licensed": float(is_licensed), "inner_no": float(is_inner)},
    )
