"""Which words a generator may use: single tokens of the vocabulary, and disjoint splits of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from mneme.arguments import one_of
from mneme.encoding import encode, tokenizer_of
from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.promptset import Vocabulary

Split = Literal["train", "discovery", "evaluation"]
SPLITS = ("train", "discovery", "evaluation")
T = TypeVar("T")
_HELD_OUT_ONE_IN = 5
_MOST_DRAWS = 1000


@dataclass
class Words:
    """Words by kind, of one split; draws are the caller's random generator's alone.

    `discovery` and `evaluation` share no word of a kind; `train` has all of them, but never a binding that is held
    out, and the other two draw held-out bindings only: a model trained on `train` has seen every word and none of the
    instances. `sizes` leaves only the first so many words of a kind. `rejected` counts words that are no single token
    by reason.
    """

    split: str = "train"
    vocabulary: Vocabulary | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    _usable: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[str, ...]:
        """All words of a kind in this split; raises BadInput where the tokenizer leaves fewer than two."""
        if kind not in self._usable:
            self._usable[kind] = self._read(kind)
        return self._usable[kind]

    def draw(self, rng: np.random.Generator, kind: str, n: int, but: Sequence[str] = ()) -> list[str]:
        """`n` distinct words of a kind, none of them in `but`; raises BadInput when there are not so many."""
        pool = [word for word in self.of(kind) if word not in but]
        if n > len(pool):
            raise BadInput(
                f"{n} distinct {kind} are asked for and the {self.split} split has {len(pool)} that are single tokens: "
                "ask for fewer"
            )
        return [pool[index] for index in rng.choice(len(pool), size=n, replace=False)]

    def allows(self, binding: Sequence[str]) -> bool:
        """Whether a scene with this binding belongs to this split; the order of its words does not matter."""
        return not binding or is_held_out(binding) == (self.split != "train")

    def known(self, kind: str) -> tuple[str, ...]:
        """All words of a kind that are single tokens, of every split: what an answer has to beat."""
        if kind not in self._known:
            offered = LEXICON[kind][: self.sizes.get(kind)]
            self._known[kind] = tuple(word for word in offered if self._is_usable(word, kind))
        return self._known[kind]

    def first_allowed(self, draw: Callable[[], T], bindings: Callable[[T], Sequence[Sequence[str]]]) -> T:
        """The first of many draws whose bindings all belong to this split; raises BadInput when there is none."""
        for _ in range(_MOST_DRAWS):
            drawn = draw()
            if all(self.allows(each) for each in bindings(drawn)):
                return drawn
        raise BadInput(
            f"{_MOST_DRAWS} draws gave no scene that belongs to the {self.split} split: "
            "use a promptset that fits this model's tokenizer"
        )

    def _read(self, kind: str) -> tuple[str, ...]:
        words = list(self.known(kind))
        if self.split != "train":
            words = words[SPLITS.index(self.split) - 1 :: 2]
        if len(words) < 2:
            raise BadInput(
                f"the tokenizer has {len(words)} {kind} as single tokens in the {self.split} split: "
                "use a promptset that fits this model"
            )
        return tuple(words)

    def _is_usable(self, word: str, kind: str) -> bool:
        if self.vocabulary is None:
            return True
        tokenizer = tokenizer_of(self.vocabulary, kind)
        # after a word, as it stands in a text: a SentencePiece tokenizer splits a text's first word differently
        before, whole = encode(tokenizer, "the"), encode(tokenizer, f"the {word}")
        usable = len(whole) == len(before) + 1 and whole[-1] not in self.vocabulary.special_ids
        self.rejected[f"{kind}: not a single token"] += not usable
        return usable


def words_for(vocabulary: Vocabulary, place: str, split: str) -> Words:
    """The words of a split that are single tokens of a vocabulary."""
    tokenizer_of(vocabulary, place)
    return Words(one_of(f"{place}.split", split, SPLITS), vocabulary)


def is_held_out(binding: Sequence[str]) -> bool:
    """Whether a binding is kept from training: one in five, by a hash of its words."""
    digest = hashlib.sha256("|".join(sorted(binding)).encode()).digest()
    return digest[0] % _HELD_OUT_ONE_IN == 0
