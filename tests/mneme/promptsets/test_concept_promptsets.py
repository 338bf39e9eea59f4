"""Prompts with a concept: the label can be read off the text, is balanced, and no entity lies in two groups."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.facts import RELATIONS
from mneme.promptset import Promptset, Vocabulary, promptsets
from mneme.promptsets.seen_before import seen_before
from mneme.promptsets.slot_of_k import slot_of_k
from mneme.promptsets.true_facts import true_facts
from tests.scene_checks import words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

TOLD_BY = {"evidence_present": "needle", "slot_of_k": "key_value_recall", "true_facts": "stored_facts"}
BARE = Vocabulary(130, 64, "eot_as_bos", 128, frozenset({128, 129}))


@cache
def built(name: str, n_items: int = 120) -> Promptset:
    vocabulary = word_vocabulary(TOLD_BY[name]) if name in TOLD_BY else BARE
    return promptsets.get(name).build(vocabulary, seed=0, n_items=n_items)


def concept(prompts: Promptset) -> list[float]:
    return prompts.conditions["concept"].tolist()


@pytest.mark.parametrize("name", [*TOLD_BY, "seen_before"])
def test_a_concept_is_balanced_and_its_key_tells_little_of_it(name: str) -> None:
    prompts = built(name)
    labels, keys = prompts.conditions["concept"].numpy(), prompts.conditions["concept_key"].numpy()
    assert set(labels) == {0.0, 1.0}
    assert 0.4 <= labels.mean() <= 0.6
    seen = defaultdict(set)
    for key, label in zip(keys, labels, strict=True):
        seen[key].add(label)
    frequent = [key for key in seen if (keys == key).sum() >= 8]
    assert all(seen[key] == {0.0, 1.0} for key in frequent)
    assert len(seen) >= 10


@pytest.mark.parametrize("name", [*TOLD_BY, "seen_before"])
def test_a_key_lies_in_one_cluster_and_no_prompt_stands_there_twice(name: str) -> None:
    prompts = built(name)
    assert prompts.clusters is not None
    clusters = defaultdict(set)
    for key, cluster in zip(prompts.conditions["concept_key"].tolist(), prompts.clusters.tolist(), strict=True):
        clusters[key].add(cluster)
    assert all(len(each) == 1 for each in clusters.values())
    rows = [tuple(row[:length]) for row, length in zip(prompts.clean.ids.tolist(), prompts.clean.lengths, strict=True)]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", TOLD_BY)
def test_a_tokenizer_of_parts_of_words_gives_prompts_too(name: str) -> None:
    prompts = promptsets.get(name).build(bpe_vocabulary(TOLD_BY[name]), seed=0, n_items=40)
    assert len(prompts) == 40
    assert set(concept(prompts)) == {0.0, 1.0}


def test_a_careful_reader_says_whether_the_asked_name_has_a_needle() -> None:
    prompts = built("evidence_present")
    for text, is_present in zip(prompts.texts, concept(prompts), strict=True):
        context, asked = text.rsplit(" So the ", 1)
        name = asked.split()[-2]
        needles = re.findall(r"(?:secret code|magic word|hidden sign) of (\w+) is", context)
        assert (name in needles) == bool(is_present)
        assert (name in re.findall(r"\w+", context)) == bool(is_present)
    assert words_at(prompts, word_vocabulary("needle"), "question_key") == [t.split()[-2] for t in prompts.texts]


def test_a_careful_reader_says_in_which_half_the_asked_key_stands() -> None:
    prompts = built("slot_of_k")
    for text, half in zip(prompts.texts, concept(prompts), strict=True):
        pairs, asked = re.fullmatch(r"Pairs: (.*)\. Again: (\w+)", text).groups()
        keys = pairs.split()[::2]
        assert keys.index(asked) // 4 == half


def test_the_last_token_was_there_once_before_or_never() -> None:
    prompts = seen_before(BARE, seed=0, n_items=200, n_tokens=16, n_keys=10)
    for row, is_seen, distance in zip(
        prompts.clean.ids, concept(prompts), prompts.conditions["distance"].tolist(), strict=True
    ):
        tokens = row[1:].tolist()
        earlier = [place for place, token in enumerate(tokens[:-1]) if token == tokens[-1]]
        assert len(earlier) == is_seen
        assert len(set(tokens)) == len(tokens) - is_seen
        if is_seen:
            assert len(tokens) - 1 - earlier[0] == distance >= 2
        else:
            assert np.isnan(distance)
    found = prompts.conditions["distance"]
    assert {float(found[~found.isnan()].min()), float(found[~found.isnan()].max())} == {2.0, 15.0}


def test_the_last_token_alone_tells_nothing() -> None:
    prompts = seen_before(BARE, seed=0, n_items=200, n_tokens=16, n_keys=10)
    last = prompts.clean.ids[:, -1]
    for token in last.unique():
        assert float(prompts.conditions["concept"][last == token].mean()) == 0.5


def test_a_careful_reader_who_knows_the_facts_says_which_statements_are_true() -> None:
    prompts, vocabulary = built("true_facts"), word_vocabulary("stored_facts")
    subjects, objects = (words_at(prompts, vocabulary, each) for each in ("subject", "object"))
    answers = RELATIONS["capital"].answers
    assert [float(answers[one] == other) for one, other in zip(subjects, objects, strict=True)] == concept(prompts)
    assert words_at(prompts, vocabulary, "end") == ["."] * len(prompts)


def test_no_subject_and_no_object_of_a_fact_lies_in_two_clusters() -> None:
    prompts, vocabulary = built("true_facts"), word_vocabulary("stored_facts")
    homes = defaultdict(set)
    for label in ("subject", "object"):
        for word, cluster in zip(words_at(prompts, vocabulary, label), prompts.clusters.tolist(), strict=True):
            homes[word].add(cluster)
    assert all(len(each) == 1 for each in homes.values())
    assert len(prompts.clusters.unique()) >= 5


def test_what_cannot_be_built_is_refused_in_a_sentence() -> None:
    with pytest.raises(BadInput, match=r"slot_of_k\.n_pairs is 5: give an even number"):
        slot_of_k(word_vocabulary("key_value_recall"), seed=0, n_pairs=5)
    with pytest.raises(BadInput, match=r"seen_before\.n_tokens is 64 and n_keys 50: give fewer than the 128 tokens"):
        seen_before(BARE, seed=0, n_tokens=64)
    with pytest.raises(BadInput, match="choose one of capital, password"):
        true_facts(word_vocabulary("stored_facts"), seed=0, relation="mixed")
