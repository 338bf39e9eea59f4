"""Filler fills any number of tokens with words of shared kinds, and never says what it must not say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mneme.filler import SENTENCES, count_words, filler, said_words, training_length
from mneme.lexicon import LEXICON
from mneme.words import Words

LONGEST = max(count_words(re.sub(r"\{\w+\}", "word", each)) for each in SENTENCES)


def test_words_and_punctuation_marks_count_one_each() -> None:
    assert count_words("The dog, the cat and Tom slept.") == 9


@pytest.mark.parametrize("n_tokens", [0, 1, 5, 13, 14, 50, 333])
def test_it_is_as_long_as_asked_but_for_less_than_a_sentence(n_tokens: int) -> None:
    sentences = filler(np.random.default_rng(n_tokens), Words(), n_tokens)
    assert n_tokens - LONGEST < count_words(" ".join(sentences)) <= n_tokens
    assert (sentences == []) == (n_tokens < min(count_words(each) for each in [*sentences, "A sentence of six words."]))


def test_a_counter_of_tokens_decides_how_much_fits() -> None:
    sentences = filler(np.random.default_rng(0), Words(), 100, count=len)
    assert 0 < sum(len(each) for each in sentences) <= 100


def test_it_never_says_a_word_that_is_kept_out_and_says_the_others() -> None:
    words = Words()
    kept_out = {*words.of("nouns")[:70], *words.of("codes")[:30], "Mary"}
    text = " ".join(filler(np.random.default_rng(0), words, 8000, kept_out))
    said = set(re.findall(r"\w+", text))
    assert not said & kept_out
    assert {*words.of("nouns")[70:], *words.of("codes")[30:]} <= said


def test_its_templates_say_no_word_of_the_lexicon() -> None:
    fixed = {word for each in SENTENCES for word in re.findall(r"\w+", re.sub(r"\{\w+\}", "", each))}
    assert not fixed & {word for members in LEXICON.values() for word in members}


def test_no_word_stands_twice_in_a_sentence_but_those_of_the_template() -> None:
    words = Words("evaluation")
    content = {word for members in LEXICON.values() for word in members}
    for sentence in filler(np.random.default_rng(1), words, 5000):
        said = [word for word in re.findall(r"\w+", sentence) if word in content]
        assert len(said) == len(set(said))


def test_said_words_are_those_of_the_pools_in_order_once() -> None:
    sentences = ["The river was near the park.", "They heard alpha and beta behind the river."]
    assert said_words(sentences, ("beta", "alpha", "gamma"), ("river",)) == ["river", "alpha", "beta"]


def test_training_filler_is_short_mostly_and_long_sometimes() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([training_length(rng) for _ in range(6000)])
    assert lengths.min() == 0
    assert 350 < lengths.max() <= 400
    assert abs(float((lengths > 60).mean()) - 340 / 401 / 12) < 0.012
