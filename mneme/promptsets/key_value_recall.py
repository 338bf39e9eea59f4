"""Associative recall: pairs of a key and a value, then keys again, whose values are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mneme.arguments import number_between, whole_number
from mneme.bindings import bound
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

GAP_POWER = 0.01  # of Zoology
_READ_TWICE_ONE_IN = 8


@dataclass(frozen=True)
class Recall:
    """How hard a scene is: pairs, slots after them in which keys are asked, and how often the pairs are read."""

    n_pairs: int
    n_slots: int
    reads: int = 1
    gap_power: float = GAP_POWER


@dataclass(frozen=True)
class _Pairs:
    """Keys and their values in the order told, and the place of the asked one."""

    keys: list[str]
    values: list[str]
    asked: int

    def told(self, values: Sequence[str], reads: int, question: str) -> Told:
        """The pairs with these values; with two reads the pairs and the question stand in front of them once more."""
        block = self._block(values, "")
        return block if reads == 1 else joined([self._block(values, "_first_read"), Told(f"{question}."), block])

    def others(self, place: int) -> tuple[str, ...]:
        """The values of all other keys."""
        return tuple(value for each, value in enumerate(self.values) if each != place)

    def _block(self, values: Sequence[str], suffix: str) -> Told:
        said = [f"{key} {value}" for key, value in zip(self.keys, values, strict=True)]
        said[self.asked] = f"{{key{suffix}}} {{value{suffix}}}"
        named = {f"key{suffix}": self.keys[self.asked], f"value{suffix}": values[self.asked]}
        return told(f"Pairs: {' '.join(said)}. Again:", **named)


@promptset(needs_tokenizer=True, source="Arora et al. 2023 (Zoology), Arora et al. 2024 (Just read twice); METHODS 15")
def key_value_recall(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_pairs: int = 8,
    n_slots: int = 8,
    gap_power: float = GAP_POWER,
    reads: int = 1,
) -> Promptset:
    """'Pairs: river alpha stone beta cloud gamma. Again: stone' -> beta, the key in any place.

    n_slots: the asked key stands in one of so many slots of two tokens after the pairs; slot x has a chance
    proportional to x ** (gap_power - 1), and the slots before it hold nouns that are no keys.
    reads: 2 says the whole block, pairs and question, twice.
    The corrupt prompt has the same words with every value at another key.
    Labels: key, value, value_next (the token after it: the next key), question_key, end; with two reads they are in
    the last one, and key_first_read, value_first_read in the first.
    Condition: place, that of the asked pair from 0. Facts: n_pairs, n_slots, gap_power, reads, split. Wrong answers:
    the values of all other keys, so chance is 1 / n_pairs. Clusters: the place of the asked pair.
    Departs from Zoology: words instead of ids, and one key is asked where Zoology asks all (training scenes ask all). A
    pretrained model that was never trained on pairs needs two reads to see what is wanted.
    Raises: BadInput where the tokenizer has too few single-token words for the pairs.
    """
    place = "key_value_recall"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    recall = Recall(
        whole_number(f"{place}.n_pairs", n_pairs, 2),
        whole_number(f"{place}.n_slots", n_slots, 1),
        whole_number(f"{place}.reads", reads, 1, 2),
        number_between(f"{place}.gap_power", gap_power, 0, 10),
    )
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"n_pairs": n_pairs, "n_slots": n_slots, "gap_power": gap_power, "reads": reads, "split": split}
    reader = SceneReader(vocabulary, place, followed=("value",))
    return promptset_of_scenes(reader, lambda: scene(rng, words, recall), n_items, facts, words.rejected)


def scene(rng: np.random.Generator, words: Words, recall: Recall | None = None) -> Scene:
    """One scene; its binding is the asked key and value.

    Without `recall` it is one for training: 3 to 10 pairs, every key asked in a slot of its own, read twice one time in
    eight.
    """
    n_asked = 1
    if recall is None:
        recall = _training_recall(rng)
        n_asked = recall.n_pairs
    order = [int(each) for each in rng.permutation(recall.n_pairs)]
    pairs = _drawn(rng, words, recall.n_pairs, order[0])
    slots = sorted(drawn_slots(rng, recall, n_asked))
    fill = _fill(rng, words, pairs.keys, 2 * slots[-1])
    starts = [0, *(slot + 1 for slot in slots)]
    gaps = [" ".join(fill[2 * start : 2 * slot]) for start, slot in zip(starts, slots, strict=False)]
    key, value = pairs.keys[order[0]], pairs.values[order[0]]
    first = told(f"{gaps[0]} {{question_key}}".lstrip(), question_key=key)
    others = [Told(f"{gap} {pairs.keys[each]}".lstrip()) for each, gap in zip(order[1:], gaps[1:], strict=False)]
    return Scene(
        context=pairs.told(pairs.values, recall.reads, first.text),
        questions=tuple(
            Question(text, pairs.values[each], pairs.others(each), after="" if number < n_asked else ".")
            for number, (each, text) in enumerate(zip(order, (first, *others), strict=False), start=1)
        ),
        corrupt=joined([pairs.told(_moved(rng, pairs.values), recall.reads, first.text), first]),
        binding=(key, value),
        cluster=f"place {order[0]}",
        conditions={"place": float(order[0])},
    )


def gap_weights(n_slots: int, power: float) -> NDArray[np.float64]:
    """[slot] the chance of each slot: proportional to power * x ** (power - 1) for x = 1 .. n_slots."""
    weights: NDArray[np.float64] = np.arange(1, n_slots + 1, dtype=np.float64) ** (power - 1)
    return np.asarray(weights / weights.sum())


def drawn_slots(rng: np.random.Generator, recall: Recall, n: int) -> list[int]:
    """`n` distinct slots by their weights, from 0."""
    weights = gap_weights(recall.n_slots, recall.gap_power)
    return [int(each) for each in rng.choice(recall.n_slots, size=n, replace=False, p=weights)]


def _training_recall(rng: np.random.Generator) -> Recall:
    n_pairs = int(rng.integers(3, 11))
    reads = 1 + int(rng.integers(_READ_TWICE_ONE_IN) == 0)
    return Recall(n_pairs, n_pairs + int(rng.integers(n_pairs + 1)), reads)


def _drawn(rng: np.random.Generator, words: Words, n: int, asked: int) -> _Pairs:
    keys, values = bound(rng, words, lambda: [words.draw(rng, kind, n) for kind in ("nouns", "codes")], asked)
    return _Pairs(keys, values, asked)


def _fill(rng: np.random.Generator, words: Words, but: Sequence[str], n: int) -> list[str]:
    """Nouns that are no keys, some of them more than once."""
    pool = [word for word in words.of("nouns") if word not in but]
    return [pool[each] for each in rng.integers(len(pool), size=n)]


def _moved(rng: np.random.Generator, values: Sequence[str]) -> list[str]:
    """The values in one cycle, so that none stays where it was."""
    cycle = [int(each) for each in rng.permutation(len(values))]
    moved = list(values)
    for here, there in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        moved[here] = values[there]
    return moved
