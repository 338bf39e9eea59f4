"""Documents of the micro-world: scenes of a behavior, told whole, with the tokens that answer something marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mneme.lexicon import CATEGORIES, LEXICON
from mneme.microworld.tokenizer import SPECIALS, words_in
from mneme.promptsets.agreement import scene as agreement
from mneme.promptsets.boxes import scene as boxes
from mneme.promptsets.colored_objects import scene as colored_objects
from mneme.promptsets.counterfactual_facts import scene as counterfactual_facts
from mneme.promptsets.docstring import scene as docstring
from mneme.promptsets.entity_binding import scene as entity_binding
from mneme.promptsets.greater_than import scene as greater_than
from mneme.promptsets.ioi import scene as ioi
from mneme.promptsets.key_value_recall import scene as key_value_recall
from mneme.promptsets.multiple_choice import scene as multiple_choice
from mneme.promptsets.needle import scene as needle
from mneme.promptsets.sequence_order import scene as sequence_order
from mneme.promptsets.stored_facts import scene as stored_facts
from mneme.promptsets.verbatim_list import scene as verbatim_list
from mneme.stories import Scene
from mneme.words import Words

INDUCTION = "induction"
_SCENES: Mapping[str, Callable[[np.random.Generator, Words], Scene]] = {
    "agreement": agreement,
    "boxes": boxes,
    "colored_objects": colored_objects,
    "counterfactual_facts": counterfactual_facts,
    "docstring": docstring,
    "entity_binding": entity_binding,
    "greater_than": greater_than,
    "ioi": ioi,
    "key_value_recall": key_value_recall,
    "multiple_choice": multiple_choice,
    "needle": needle,
    "sequence_order": sequence_order,
    "stored_facts": stored_facts,
    "verbatim_list": verbatim_list,
}
BEHAVIORS = (INDUCTION, *_SCENES)
# The micro-world has the first words of each kind only: a small vocabulary is learnt from few documents.
SIZES: Mapping[str, int] = {
    "names": 32,
    "places": 12,
    "gifts": 10,
    "objects": 20,
    "nouns": 64,
    "codes": 32,
    "containers": 20,
    "liquids": 20,
    "events": 8,
    "centuries": 5,
    "countries": 24,
    "capitals": 24,
    **{f"{category}s": 8 for category in CATEGORIES},
}
_SHORTEST_PERIOD, _LONGEST_PERIOD = 5, 64
_SAMPLES_FOR_VOCABULARY = 100
_SHARE_OF_LONG = 0.04
_SLACK = 1.25  # how much longer than the shortest the longest of a group may be


@dataclass(frozen=True)
class Document:
    """Token ids without the first token of a text, and which of them answer something: both [position]."""

    ids: list[int]
    is_answer: list[bool]


def scene_of(behavior: str) -> Callable[[np.random.Generator, Words], Scene]:
    """The function that makes training scenes of a behavior."""
    return _SCENES[behavior]


@cache
def world_words() -> tuple[str, ...]:
    """Every word of the micro-world: its part of the lexicon, and what the templates of the behaviors say around it."""
    words = dict.fromkeys(word for kind in LEXICON for word in Words(sizes=SIZES).known(kind))
    rng = np.random.default_rng(0)
    for split in ("train", "evaluation"):
        source = Words(split, sizes=SIZES)
        for scene in _SCENES.values():
            for _ in range(_SAMPLES_FOR_VOCABULARY):
                words |= dict.fromkeys(words_in(scene(rng, source).document().text))
    return tuple(sorted(words))


class Library:
    """Draws documents; what it draws depends on the generator it is given alone."""

    def __init__(self, vocabulary: Mapping[str, int], longest: int) -> None:
        self._ids = vocabulary
        # a tokenizer lists its words in another order each time
        self._ordinary = sorted(index for word, index in vocabulary.items() if word not in SPECIALS)
        self._longest = longest
        self._words = Words("train", sizes=SIZES)

    def draw(self, rng: np.random.Generator, mixture: Mapping[str, float]) -> Document:
        """A document of at most `longest` tokens: one scene, or, now and then, scenes until it is full.

        mixture: how often each behavior is drawn, in any unit.
        """
        document = self._one(rng, mixture)
        if rng.random() >= _SHARE_OF_LONG:
            return document
        while True:
            more = self._one(rng, mixture)
            if len(document.ids) + len(more.ids) > self._longest:
                return document
            document = Document(document.ids + more.ids, document.is_answer + more.is_answer)

    def of(self, behavior: str, rng: np.random.Generator) -> Document:
        """One document of a behavior, cut to `longest` tokens."""
        if behavior == INDUCTION:
            period = int(rng.integers(_SHORTEST_PERIOD, _LONGEST_PERIOD + 1))
            document = self.repeated(rng, self._ordinary, period, period * int(rng.integers(2, 4)))
        else:
            document = self._told(scene_of(behavior)(rng, self._words))
        return Document(document.ids[: self._longest], document.is_answer[: self._longest])

    def few_words(self, n: int) -> list[int]:
        """`n` ids from all over the vocabulary."""
        return self._ordinary[:: max(1, len(self._ordinary) // n)][:n]

    def repeated(self, rng: np.random.Generator, ids: Sequence[int], period: int, length: int) -> Document:
        """`period` distinct ids, said again and again up to `length`; the answers are what has been said before."""
        first = [ids[each] for each in rng.choice(len(ids), size=period, replace=False)]
        copies = -(-length // period)
        return Document((first * copies)[:length], [False] * (period + 1) + [True] * (length - period - 1))

    def _one(self, rng: np.random.Generator, mixture: Mapping[str, float]) -> Document:
        shares = np.array(list(mixture.values()))
        return self.of(list(mixture)[int(rng.choice(len(shares), p=shares / shares.sum()))], rng)

    def _told(self, scene: Scene) -> Document:
        told = scene.document()
        answers = {told.spans[f"answer_{number}"][0] for number in range(len(scene.questions))}
        ids: list[int] = []
        is_answer: list[bool] = []
        at = 0
        for word in words_in(told.text):
            at = told.text.index(word, at)
            ids.append(self._ids[word])
            is_answer.append(at in answers)
            at += len(word)
        return Document(ids, is_answer)


def rows_by_length(documents: Sequence[Document]) -> list[list[Document]]:
    """The documents in groups of like length, so that little padding is needed."""
    groups: list[list[Document]] = []
    for each in sorted(documents, key=lambda document: len(document.ids)):
        if not groups or len(each.ids) > _SLACK * len(groups[-1][0].ids):
            groups.append([])
        groups[-1].append(each)
    return groups
