"""Pairs read once and read twice, with the question each time: what a second reading adds, on the same items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.pair_lists import PairList, asks, drawn_pairs
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_groups import promptset_of_groups
from mneme.scene_prompts import SceneReader
from mneme.stories import Scene, Told, joined
from mneme.words import Words, words_for

FIRSTS = ("same", "shuffled", "irrelevant", "question")


@promptset(needs_tokenizer=True, source="Arora et al. 2024 (Just read twice); METHODS 15")
def read_twice(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 100,
    n_pairs: int = 8,
    first: str = "same",
) -> Promptset:
    """'Pairs: river alpha stone beta. Again: stone' -> beta, and once more with something read before it.

    n_items: lists; each gives two prompts, which are a cluster: read once, and with a first reading in front of it.
    first: that reading is the `same` block, pairs and question; its pairs `shuffled`; an `irrelevant` block as long, of
    other words; or the `question` alone. Irrelevant controls for length, the question alone for its order.
    The lists are those of `same` with the same seed.
    The corrupt prompt has every value of the last reading at the next key.
    Labels, in the last reading: key, value, value_next (the token after it), question_key, question_first, question,
    end. Condition: reads, 1 or 2. Facts: n_pairs, first. Wrong answers: the values of all other keys, so chance is
    1 / n_pairs.
    Departs from Arora et al.: words of the micro-world; the words are those of both held-out splits.
    Raises: BadInput where the tokenizer has too few single-token words for the pairs.
    """
    place = "read_twice"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_pairs = whole_number(f"{place}.n_pairs", n_pairs, 2)
    one_of(f"{place}.first", first, FIRSTS)
    words = words_for(vocabulary, place, "evaluation")
    rng = np.random.default_rng(seed)

    def draw() -> list[Scene]:
        own = np.random.default_rng(int(rng.integers(2**62)))  # so that the controls have the same lists
        pairs = drawn_pairs(own, words, n_pairs, int(own.integers(n_pairs)))
        question = asks(pairs.key)
        front = _first_reading(own, words, pairs, first)
        once, twice = pairs.answered(question), pairs.answered(question, front)
        return [replace(once, conditions={"reads": 1.0}), replace(twice, conditions={"reads": 2.0})]

    facts = {"n_pairs": n_pairs, "first": first}
    reader = SceneReader(vocabulary, place, followed=("value",))
    return promptset_of_groups(reader, draw, n_items, facts, words.rejected)


def _first_reading(rng: np.random.Generator, words: Words, pairs: PairList, first: str) -> Told:
    """What stands in front of the list that is read once in any case."""
    if first == "question":
        return Told(f"Again: {pairs.key}.")
    read = pairs
    if first == "shuffled":
        read = pairs.arranged(rng.permutation(len(pairs.keys)).tolist())
    elif first == "irrelevant":
        read = drawn_pairs(rng, words, len(pairs.keys), pairs.asked, but=(*pairs.keys, *pairs.values))
    return Told(joined([read.told(), asks(read.key), Told(".")]).text)
