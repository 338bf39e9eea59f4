"""Lists of pairs of a key and a value, one of which is asked: what tests of recall by length and place are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mneme.bindings import bound
from mneme.errors import BadInput
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words


@dataclass(frozen=True)
class PairList:
    """Keys and values in the order told, and the place of the asked pair."""

    keys: tuple[str, ...]
    values: tuple[str, ...]
    asked: int

    @property
    def key(self) -> str:
        """The key that is asked."""
        return self.keys[self.asked]

    @property
    def value(self) -> str:
        """The value that answers."""
        return self.values[self.asked]

    def told(self) -> Told:
        """'Pairs: river alpha stone beta. Again:' with the spans `key` and `value` of the asked pair."""
        said = [f"{key} {value}" for key, value in zip(self.keys, self.values, strict=True)]
        said[self.asked] = "{key} {value}"
        return told(f"Pairs: {' '.join(said)}. Again:", key=self.key, value=self.value)

    def arranged(self, order: Sequence[int]) -> PairList:
        """The pairs of these places, in this order; the asked one must be among them."""
        keys, values = (tuple(each[place] for place in order) for each in (self.keys, self.values))
        return PairList(keys, values, list(order).index(self.asked))

    def with_values(self, values: Sequence[str]) -> PairList:
        """The same keys with other values."""
        return PairList(self.keys, tuple(values), self.asked)

    def moved(self) -> PairList:
        """Every value at the next key, the last one's at the first: none stays where it was."""
        return self.with_values([self.values[-1], *self.values[:-1]])

    def answered(self, question: Told, front: Told | None = None, said: PairList | None = None) -> Scene:
        """A scene that tells the pairs and asks; the values of the other pairs are wrong.

        front: what stands before the pairs. said: the pairs that are told in place of these, which answer. The corrupt
        prompt tells them with every value moved to the next key; a single pair has no such counterpart.
        """
        said = said or self
        front = front or Told("")
        wrong = tuple(value for place, value in enumerate(self.values) if place != self.asked)
        corrupt = joined([Told(front.text), said.moved().told(), question]) if len(said.keys) > 1 else None
        return Scene(
            context=joined([front, said.told()]),
            questions=(Question(question, self.value, wrong),),
            corrupt=corrupt,
            binding=(self.key, self.value),
        )


def asks(key: str, fill: Sequence[str] = ()) -> Told:
    """The question: words that are no keys, and then the key, with the span `question_key`."""
    return told(" ".join([*fill, "{question_key}"]), question_key=key)


def drawn_pairs(rng: np.random.Generator, words: Words, n: int, asked: int, but: Sequence[str] = ()) -> PairList:
    """`n` pairs of a noun and a code, none of them in `but`, of which the asked one is held out from training.

    The words are those of both held-out splits, since long lists need more than one of them has; that the asked pair
    was never trained does not depend on the split.
    Raises: BadInput where the tokenizer has fewer such words as single tokens.
    """

    def draw() -> list[list[str]]:
        return [_some(rng, words, kind, n, but) for kind in ("nouns", "codes")]

    keys, values = bound(rng, words, draw, asked)
    return PairList(tuple(keys), tuple(values), asked)


def other_nouns(rng: np.random.Generator, words: Words, but: Sequence[str], n: int) -> list[str]:
    """`n` nouns that are not in `but`, some of them more than once."""
    pool = [word for word in words.known("nouns") if word not in but]
    return [pool[each] for each in rng.integers(len(pool), size=n)]


def _some(rng: np.random.Generator, words: Words, kind: str, n: int, but: Sequence[str]) -> list[str]:
    pool = [word for word in words.known(kind) if word not in but]
    if n > len(pool):
        raise BadInput(
            f"{n} distinct {kind} are asked for and the tokenizer has {len(pool)} as single tokens: ask for fewer "
            "pairs or use a promptset that fits this model"
        )
    return [pool[each] for each in rng.choice(len(pool), size=n, replace=False)]
