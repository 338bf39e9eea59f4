"""Scenes told as running text: exact lengths, two domains, and counts of the tokens of a corpus."""

from collections import Counter

import pytest
import torch

from mneme.errors import BadInput
from mneme.function_tokens import corpus_counts, is_function_token
from mneme.microworld.documents import world_words
from mneme.microworld.tokenizer import word_tokenizer
from mneme.promptset import Vocabulary
from mneme.promptsets import told_scenes as module
from mneme.promptsets.single_token import single_token
from mneme.promptsets.told_scenes import told_scenes


@pytest.fixture(scope="module")
def world():
    tokenizer = word_tokenizer(world_words(), 512)
    special = frozenset(tokenizer.all_special_ids)
    return Vocabulary(len(tokenizer), 512, "native", tokenizer.bos_token_id, special, tokenizer)


def test_prompts_have_exactly_the_length_and_the_world_s_own_words(world):
    prompts = told_scenes(world, seed=0, n_items=20, n_tokens=40)
    assert prompts.clean.ids.shape == (20, 40)
    assert prompts.clean.is_full
    assert not bool(torch.isin(prompts.clean.ids[:, 1:], torch.tensor(sorted(world.special_ids))).any())
    assert len({tuple(row) for row in prompts.clean.ids.tolist()}) == 20
    assert prompts.conditions == {}


def test_two_domains_are_two_halves_of_one_length(world):
    prompts = told_scenes(world, seed=0, n_items=10, n_tokens=30, scenes=["ioi"], other_scenes=["verbatim_list"])
    assert prompts.conditions["domain"].tolist() == [0] * 5 + [1] * 5
    assert prompts.clean.is_full
    assert all("Pairs" not in text and "Again" not in text for text in prompts.texts[:5])
    assert sum(":" in text for text in prompts.texts[5:]) == 5


def test_a_corpus_is_counted_to_the_token_and_leaves_the_prompts_as_they_are(world, monkeypatch):
    monkeypatch.setattr(module, "LEAST_TOKENS", 1000)
    plain = told_scenes(world, seed=0, n_items=4, n_tokens=30)
    counted = told_scenes(world, seed=0, n_items=4, n_tokens=30, corpus_tokens=1000)
    assert torch.equal(plain.clean.ids, counted.clean.ids)
    frequencies = counted.facts["frequencies"]
    assert sum(count for _, count in frequencies) == 1000
    assert [count for _, count in frequencies] == sorted((count for _, count in frequencies), reverse=True)
    assert world.first_id not in dict(frequencies)


def test_the_most_frequent_tokens_are_the_ones_that_a_count_of_prompts_gives(world):
    counted = told_scenes(world, seed=0, n_items=150, n_tokens=401, corpus_tokens=100_000)
    by_hand = Counter(counted.clean.ids[:, 1:].flatten().tolist())
    top = [token for token, _ in by_hand.most_common(5)]
    assert set(top) == {token for token, _ in corpus_counts(counted)[:5]}
    covered = is_function_token(counted, 0.4)[:, 1:].double().mean()
    assert 0.35 < float(covered) < 0.5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scenes": []}, "list of behaviors"),
        ({"scenes": ["induction"]}, "choose one of"),
        ({"other_scenes": ["nothing"]}, "other_scenes"),
        ({"corpus_tokens": 99_999}, "100000"),
        ({"n_tokens": 513}, "n_tokens"),
    ],
)
def test_what_cannot_be_told_is_refused(world, parameters, message):
    with pytest.raises(BadInput, match=message):
        told_scenes(world, seed=0, **parameters)


def test_a_single_token_is_said_over_and_over(world):
    ids = single_token(world, seed=0, n_items=5, n_tokens=20).clean.ids
    assert ids[:, 0].tolist() == [world.first_id] * 5
    assert bool((ids[:, 1:] == ids[:, 1:2]).all())
    assert not bool(torch.isin(ids[:, 1], torch.tensor(sorted(world.special_ids))).any())
