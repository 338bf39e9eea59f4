"""Facts that a model may hold in its weights: true capitals, and a password invented for every name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mneme.lexicon import CAPITALS, LEXICON
from mneme.words import Words


@dataclass(frozen=True)
class Relation:
    """One fact for each subject, and the ways to ask for it; the first is the plain one.

    subjects, objects: kinds of the lexicon; answers: subject -> object, no object twice.
    """

    subjects: str
    objects: str
    answers: Mapping[str, str]
    phrasings: tuple[str, ...]


RELATIONS: Mapping[str, Relation] = MappingProxyType(
    {
        "capital": Relation(
            "countries",
            "capitals",
            CAPITALS,
            (
                "The capital of {subject} is",
                "The capital city of {subject} is",
                "The government of {subject} is in",
                "The king of {subject} was in",
                "To see the capital of {subject} we went to",
            ),
        ),
        "password": Relation(
            "names",
            "nouns",
            MappingProxyType(dict(zip(LEXICON["names"], LEXICON["nouns"], strict=False))),
            (
                "The password of {subject} is",
                "The secret word of {subject} is",
                "The word that {subject} chose is",
                "The door of {subject} opens with",
                "To write to {subject} we used the word",
            ),
        ),
    }
)


def rivals(words: Words, relation: Relation, answer: str) -> tuple[str, ...]:
    """The answers of all other subjects that are single tokens, of every split."""
    known = set(words.known(relation.objects))
    return tuple(each for each in relation.answers.values() if each != answer and each in known)


def remarks(rng: np.random.Generator, words: Words, n: int, but: tuple[str, ...] = ()) -> str:
    """`n` sentences that say nothing about any fact, on people who are not in `but`."""
    people = words.draw(rng, "names", n, but=but)
    return " ".join(f"{person} was near the {words.draw(rng, 'places', 1)[0]}." for person in people)
