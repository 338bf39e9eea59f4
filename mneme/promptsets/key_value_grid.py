"""Associative recall over the number of pairs: the same question in longer and longer lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mneme.arguments import number_between, one_of, whole_number
from mneme.errors import BadInput
from mneme.pair_lists import PairList, asks, drawn_pairs, other_nouns
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.key_value_recall import GAP_POWER, Recall, drawn_slots
from mneme.scene_groups import promptset_of_groups
from mneme.scene_prompts import SceneReader
from mneme.stories import Scene
from mneme.words import words_for

CONTROLS = ("none", "shuffled_values", "unseen_key")
_MOST_PAIRS = 512


@promptset(needs_tokenizer=True, source="Arora et al. 2023 (Zoology); METHODS 15")
def key_value_grid(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 50,
    n_pairs: Sequence[int] = (4, 8, 16, 32),
    n_slots: int = 8,
    gap_power: float = GAP_POWER,
    control: str = "none",
) -> Promptset:
    """'Pairs: river alpha stone beta ... Again: stone' -> beta, each list in every one of several lengths.

    n_items: lists; each is told with every number of pairs in `n_pairs`, the shorter ones part of the longer, in the
    same order and with the same question, so that lengths are compared on the same items. A list is a cluster.
    n_slots, gap_power: where the asked key stands after the pairs, as in `key_value_recall`.
    control: `shuffled_values` puts the values of the told list at other keys by chance while the answer stays, and
    `unseen_key` asks a noun that is no key: whoever answers from the list is right 1 time in n_pairs in both.
    The lists are those of `none` with the same seed.
    The corrupt prompt has every value at the next key.
    Labels: key, value, value_next (the token after it), question_key, question_first, question, end. Condition:
    n_pairs; the place of the asked pair is drawn evenly and is none, since it says how long the list is. Facts:
    n_pairs, n_slots, gap_power, control, chance (mean of 1 / n_pairs).
    Departs from Zoology: words instead of ids, one key is asked, and lists of several lengths in one promptset. The
    words are those of both held-out splits, since 32 pairs need more than one has.
    Raises: BadInput for numbers of pairs that are no list of different numbers of at least 2, or where the tokenizer
    has too few single-token words for the longest list.
    """
    place = "key_value_grid"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    sizes = _sizes(n_pairs)
    n_slots = whole_number(f"{place}.n_slots", n_slots, 1)
    recall = Recall(sizes[-1], n_slots, gap_power=number_between(f"{place}.gap_power", gap_power, 0, 10))
    one_of(f"{place}.control", control, CONTROLS)
    words = words_for(vocabulary, place, "evaluation")
    rng = np.random.default_rng(seed)

    def draw() -> list[Scene]:
        own = np.random.default_rng(int(rng.integers(2**62)))  # so that the controls have the same lists
        ranks = own.permutation(sizes[-1])
        pairs = drawn_pairs(own, words, sizes[-1], int(ranks.argmin()))
        slot = drawn_slots(own, recall, 1)[0]
        nouns = other_nouns(own, words, pairs.keys, 2 * slot + 1)
        question = asks(nouns[-1] if control == "unseen_key" else pairs.key, nouns[:-1])
        scenes = []
        for size in sizes:
            part = pairs.arranged(np.flatnonzero(ranks < size).tolist())
            said = _shuffled(own, part) if control == "shuffled_values" else part
            scenes.append(replace(part.answered(question, said=said), conditions={"n_pairs": float(size)}))
        return scenes

    facts = {"n_pairs": sizes, "n_slots": n_slots, "gap_power": recall.gap_power, "control": control}
    reader = SceneReader(vocabulary, place, followed=("value",))
    return promptset_of_groups(reader, draw, n_items, facts, words.rejected)


def _shuffled(rng: np.random.Generator, pairs: PairList) -> PairList:
    """Values in an order of chance, so that each is as likely at the asked key as at any other."""
    return pairs.with_values([pairs.values[each] for each in rng.permutation(len(pairs.values))])


def _sizes(n_pairs: Sequence[int]) -> list[int]:
    if not isinstance(n_pairs, list | tuple) or not n_pairs:
        raise BadInput(f"key_value_grid.n_pairs is {n_pairs!r}: give a list of numbers of pairs, such as [4, 8, 16]")
    sizes = [whole_number("key_value_grid.n_pairs", each, 2, _MOST_PAIRS) for each in n_pairs]
    if len(set(sizes)) < len(sizes):
        raise BadInput(f"key_value_grid.n_pairs is {n_pairs!r}: name each number once")
    return sorted(sizes)
