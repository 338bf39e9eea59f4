"""Splits of words share nothing, and a tokenizer's own words are the only ones used."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.microworld.tokenizer import word_tokenizer
from mneme.promptset import Vocabulary
from mneme.words import Words, is_held_out, words_for


def vocabulary(words: list[str]) -> Vocabulary:
    tokenizer = word_tokenizer(words, 128)
    return Vocabulary(len(tokenizer), 128, "native", 0, frozenset({0, 1, 2}), tokenizer)


@pytest.mark.parametrize("kind", LEXICON)
def test_discovery_and_evaluation_share_no_word_and_training_has_them_all(kind: str) -> None:
    discovery, evaluation, train = (set(Words(split).of(kind)) for split in ("discovery", "evaluation", "train"))
    assert not discovery & evaluation
    assert discovery | evaluation == train == set(LEXICON[kind])


@pytest.mark.parametrize("kind", LEXICON)
def test_no_word_stands_twice_in_a_kind(kind: str) -> None:
    assert max(Counter(LEXICON[kind]).values()) == 1


def test_every_binding_belongs_to_training_or_to_the_others_whatever_the_order_of_its_words() -> None:
    names = LEXICON["names"]
    held_out = 0
    for first in names:
        for second in names:
            assert Words("train").allows((first, second)) != Words("evaluation").allows((second, first))
            held_out += is_held_out((first, second))
    assert 0.15 < held_out / len(names) ** 2 < 0.25


def test_a_draw_gives_distinct_words_and_leaves_out_what_it_is_told_to() -> None:
    words = Words("evaluation")
    rest = words.of("places")[1:]
    drawn = words.draw(np.random.default_rng(0), "places", len(rest), but=[words.of("places")[0]])
    assert sorted(drawn) == sorted(rest)


def test_words_that_the_tokenizer_does_not_know_are_rejected_and_counted() -> None:
    known = ["the", "Mary", "John", "Tom", "James"]
    words = words_for(vocabulary(known), "a test", "train")
    assert set(words.of("names")) == set(known[1:])
    assert words.rejected == {"names: not a single token": len(LEXICON["names"]) - 4}
    with pytest.raises(BadInput, match="0 places as single tokens in the train split"):
        words.of("places")


def test_too_few_words_and_an_unknown_split_are_refused() -> None:
    with pytest.raises(BadInput, match="distinct names are asked for"):
        Words("evaluation").draw(np.random.default_rng(0), "names", 1000)
    with pytest.raises(BadInput, match=r"a test\.split is 'all'"):
        words_for(vocabulary(["the"]), "a test", "all")
