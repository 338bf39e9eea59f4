import pytest
import torch

from mneme.errors import BadInput
from mneme.promptset import Vocabulary
from mneme.promptsets.repeated_tokens import repeated_tokens

WITH_BOS = Vocabulary(130, 128, "eot_as_bos", 128, frozenset({128, 129}))
WITHOUT_BOS = Vocabulary(130, 128, "none", None, frozenset({128, 129}))


def test_the_second_copy_repeats_the_first_after_the_first_token():
    prompts = repeated_tokens(WITH_BOS, seed=0, n_items=5, period=20, copies=3)
    ids = prompts.clean.ids
    assert ids.shape == (5, 61)
    assert (ids[:, 0] == 128).all()
    assert torch.equal(ids[:, 1:21], ids[:, 21:41])
    assert torch.equal(ids[:, 1:21], ids[:, 41:61])
    assert prompts.facts["offset"] == 1
    assert prompts.clean.labels["copy_2"].tolist() == [21] * 5


def test_the_tokens_of_a_period_are_distinct_and_never_special():
    ids = repeated_tokens(WITHOUT_BOS, seed=0, n_items=50, period=60).clean.ids
    assert all(len(set(row[:60].tolist())) == 60 for row in ids)
    assert int(ids.max()) < 128


def test_the_fresh_control_repeats_nothing_at_the_same_places():
    prompts = repeated_tokens(WITH_BOS, seed=0, n_items=10, period=20, copy="fresh")
    assert all(len(set(row.tolist())) == 41 for row in prompts.clean.ids)
    assert prompts.facts["period"] == 20
    assert prompts.facts["offset"] == 1


def test_the_shuffled_control_keeps_the_tokens_and_no_place():
    ids = repeated_tokens(WITHOUT_BOS, seed=0, n_items=30, period=12, copy="shuffled").clean.ids
    first, second = ids[:, :12], ids[:, 12:]
    assert torch.equal(first.sort(dim=1).values, second.sort(dim=1).values)
    assert not (first == second).any()


def test_the_seed_decides_the_tokens():
    first, again, other = (repeated_tokens(WITH_BOS, seed=seed, n_items=4).clean.ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_ordinary_id_is_drawn_about_equally_often():
    ids = repeated_tokens(WITHOUT_BOS, seed=0, n_items=500, period=32).clean.ids[:, :32]
    counts = torch.bincount(ids.reshape(-1), minlength=128).double()
    assert counts.min() > 0.6 * counts.mean()
    assert counts.max() < 1.4 * counts.mean()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"period": 7}, "at least 8"),
        ({"period": 100}, "context"),
        ({"period": 129, "copies": 2}, "distinct ids"),
        ({"period": 40, "copies": 4, "copy": "fresh"}, "160 distinct ids"),
        ({"copy": "twice"}, "exact, fresh, shuffled"),
        ({"n_items": "64"}, "whole number"),
        ({"copies": 1}, "at least 2"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words):
    with pytest.raises(BadInput, match=words):
        repeated_tokens(WITH_BOS, seed=0, **parameters)
