"""In training no row of a scene is held out; in a held-out split the asked row is."""

from __future__ import annotations

import numpy as np
import pytest

from mneme.bindings import bound
from mneme.errors import BadInput
from mneme.words import Words, is_held_out

N = 8


def drawn(split: str, seed: int, asked: int) -> list[list[str]]:
    rng, words = np.random.default_rng(seed), Words(split)
    return bound(rng, words, lambda: [words.draw(rng, kind, N) for kind in ("names", "codes")], asked)


@pytest.mark.parametrize("seed", range(20))
def test_training_has_no_held_out_row_and_the_other_splits_ask_one(seed: int) -> None:
    asked = seed % N
    assert not any(is_held_out(row) for row in zip(*drawn("train", seed, asked), strict=True))
    for split in ("discovery", "evaluation"):
        keys, values = drawn(split, seed, asked)
        assert is_held_out((keys[asked], values[asked]))


def test_the_rows_that_are_not_asked_are_left_to_chance() -> None:
    held_out = [
        is_held_out(row)
        for seed in range(100)
        for place, row in enumerate(zip(*drawn("evaluation", seed, 0), strict=True))
        if place > 0
    ]
    assert 0.14 < np.mean(held_out) < 0.26


def test_words_are_exchanged_within_the_last_column_only() -> None:
    names, codes = ["Mary", "John", "Tom", "Dan"], ["alpha", "beta", "gamma", "delta"]
    keys, values = bound(np.random.default_rng(0), Words("train"), lambda: [list(names), list(codes)], 2)
    assert keys == names
    assert sorted(values) == sorted(codes)


def test_words_that_bind_in_no_allowed_way_are_refused() -> None:
    pair = next([name, "alpha"] for name in Words().of("names") if not is_held_out((name, "alpha")))
    with pytest.raises(BadInput, match="the evaluation split"):
        bound(np.random.default_rng(0), Words("evaluation"), lambda: [[pair[0]], [pair[1]]], 0)
