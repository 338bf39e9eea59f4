"""Filler: plain sentences that say nothing about a question, of any number of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import numpy as np

from mneme.words import Words

# No sentence says "A": in some behaviors that is the label of a box.
SENTENCES = (
    "The {nouns} was near the {places}.",
    "{names} found the {colors} {objects} in the {places}.",
    "Near the {nouns} there was one {colors} {objects}.",
    "{names} went to the {places} with {names}.",
    "People said {codes} at the {places}.",
    "The {animals} slept under the {nouns}.",
    "They heard {codes} and {codes} behind the {nouns}.",
    "Then {names} looked at the {nouns}, the {nouns} and the {objects}.",
    "One {animals} ran from the {places} to the {nouns}.",
    "The {objects} and the {nouns} were {colors}.",
)
_LONGEST_OF_MOST, _LONGEST_OF_SOME, _LONG_ONE_IN = 60, 400, 12
_SLOT = re.compile(r"\{(\w+)\}")
_PIECE = re.compile(r"\w+|[^\w\s]")


def count_words(text: str) -> int:
    """How many words and punctuation marks a text has."""
    return len(_PIECE.findall(text))


def filler(
    rng: np.random.Generator,
    words: Words,
    n_tokens: int,
    but: Collection[str] = (),
    count: Callable[[str], int] = count_words,
) -> list[str]:
    """Sentences of at most `n_tokens` tokens together; the next one drawn would have been too long.

    but: words that must not stand in them. count: how many tokens a sentence has, by default one for each word and
    punctuation mark. Nouns, codes, names, places, objects, animals and colors occur, so that no kind of word is a cue.
    """
    sentences: list[str] = []
    left = n_tokens
    while left > 0:
        sentence = _sentence(rng, words, but)
        left -= count(sentence)
        if left >= 0:
            sentences.append(sentence)
    return sentences


def training_length(rng: np.random.Generator) -> int:
    """Tokens of filler in a training scene: up to 60, one time in twelve up to 400, so that long prompts are known."""
    longest = _LONGEST_OF_SOME if rng.integers(_LONG_ONE_IN) == 0 else _LONGEST_OF_MOST
    return int(rng.integers(longest + 1))


def said_words(sentences: Collection[str], *pools: Collection[str]) -> list[str]:
    """The words of the sentences that are in one of the pools, each once, in the order of their first mention."""
    known = frozenset().union(*pools)
    return list(dict.fromkeys(word for each in sentences for word in _PIECE.findall(each) if word in known))


def _sentence(rng: np.random.Generator, words: Words, but: Collection[str]) -> str:
    """One sentence, no word of a kind twice in it."""
    said: list[str] = []

    def fill(slot: re.Match[str]) -> str:
        pool = words.of(slot[1])
        word = pool[int(rng.integers(len(pool)))]
        while word in but or word in said:
            word = pool[int(rng.integers(len(pool)))]
        said.append(word)
        return word

    return _SLOT.sub(fill, SENTENCES[int(rng.integers(len(SENTENCES)))])
