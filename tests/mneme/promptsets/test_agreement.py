"""Subject-verb agreement: verbs in both numbers, and the noun before the verb says nothing about it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.lexicon import AGREEING_NOUNS, AGREEING_VERBS
from mneme.promptset import Vocabulary
from mneme.promptsets.agreement import agreement, scene
from mneme.stats import wilson
from mneme.words import Words, is_held_out
from tests.scene_checks import changed_places, words_at
from tests.scene_vocabularies import bpe_vocabulary, texts, word_vocabulary

WORDS = word_vocabulary("agreement")
PLURALS = set(AGREEING_NOUNS.values())
SINGULAR_VERBS, PLURAL_VERBS = set(AGREEING_VERBS), set(AGREEING_VERBS.values())


def verbs(vocabulary: Vocabulary, row: torch.Tensor) -> set[str]:
    return {vocabulary.tokenizer.decode(int(each)).strip() for each in row if each >= 0}


def test_a_simple_sentence_has_one_noun_and_its_verb() -> None:
    told = scene(np.random.default_rng(0), Words(), "simple", 1)
    (question,) = told.questions
    opening, the, noun = question.text.text.split()
    assert the == "the"
    agreeing, others = (PLURAL_VERBS, SINGULAR_VERBS) if noun in PLURALS else (SINGULAR_VERBS, PLURAL_VERBS)
    assert (set(question.correct), set(question.wrong)) == (agreeing, others)
    assert question.answer in agreeing
    assert told.document().text == f"{opening} the {noun} {question.answer}."


@pytest.mark.parametrize("shape", ["phrase", "clause", "across"])
@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("agreement", 511)], ids=["words", "bpe"])
def test_the_verbs_agree_with_the_subject_whatever_the_attractor_is(vocabulary: Vocabulary, shape: str) -> None:
    prompts = agreement(vocabulary, seed=0, n_items=100, shape=shape)
    subjects, attractors = (words_at(prompts, vocabulary, name) for name in ("subject", "attractor"))
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    for item, (subject, attractor) in enumerate(zip(subjects, attractors, strict=True)):
        agreeing, others = (PLURAL_VERBS, SINGULAR_VERBS) if subject in PLURALS else (SINGULAR_VERBS, PLURAL_VERBS)
        assert verbs(vocabulary, prompts.correct_ids[item]) == agreeing
        assert verbs(vocabulary, prompts.wrong_ids[item]) == others
        before, link, *_ = (prompts.texts or ())[item].split()[1:]
        assert before == subject
        assert attractor in (prompts.texts or ())[item].split()[3:]
        assert shape == "across" or (link == "that") is (shape == "clause")
    assert prompts.facts["n_verbs"] == 20
    assert prompts.facts["chance"]["set_accuracy"] == 0.5
    assert prompts.facts["chance"]["answer_accuracy"] == 0.5


def test_the_verb_of_a_clause_agrees_with_the_attractor() -> None:
    for text in agreement(WORDS, seed=0, n_items=100, shape="clause").texts or ():
        *_, attractor, verb = text.split()
        assert verb.endswith("s") is (attractor not in PLURALS)


def test_numbers_of_subject_and_attractor_are_balanced_and_independent() -> None:
    prompts = agreement(WORDS, seed=0, n_items=400)
    subject, attractor = (
        np.array([word in PLURALS for word in words_at(prompts, WORDS, name)]) for name in ("subject", "attractor")
    )
    for share in (subject, attractor, subject == attractor):
        low, high = wilson(int(share.sum()), 400)
        assert low <= 0.5 <= high


def test_the_verb_that_followed_the_last_word_in_training_is_no_help() -> None:
    after: Counter[tuple[str, bool]] = Counter()
    for text in texts("agreement", 3000):
        for sentence in text.rstrip(".").split(". "):
            *_, last, verb = sentence.split()
            after[last, verb in PLURAL_VERBS] += 1
    prompts = agreement(WORDS, seed=0, n_items=400)
    hits = [
        after[text.split()[-1], subject in PLURALS] > after[text.split()[-1], subject not in PLURALS]
        for text, subject in zip(prompts.texts or (), words_at(prompts, WORDS, "subject"), strict=True)
    ]
    assert 0.4 < np.mean(hits) < 0.6


def test_the_corrupt_prompt_changes_the_number_of_the_subject_alone() -> None:
    prompts = agreement(WORDS, seed=0, n_items=100)
    assert prompts.corrupt is not None
    both = {**AGREEING_NOUNS, **{plural: noun for noun, plural in AGREEING_NOUNS.items()}}
    subjects = words_at(prompts, WORDS, "subject")
    for item in range(100):
        place = int(prompts.clean.labels["subject"][item])
        assert changed_places(prompts, item) == [place]
        assert WORDS.tokenizer.decode(int(prompts.corrupt.ids[item, place])) == both[subjects[item]]


def test_prompts_of_mixed_shapes_have_the_labels_that_all_of_them_have() -> None:
    prompts = agreement(WORDS, seed=0, n_items=100, shape="mixed")
    assert prompts.clean.labels.keys() == {"end", "subject"}
    assert {len(text.split()) for text in prompts.texts or ()} == {3, 5, 6}
    assert prompts.clusters is not None
    assert len(prompts.clusters.unique()) > 20


def test_held_out_sentences_are_asked_and_never_told() -> None:
    told = {
        tuple(sentence.split()[:-1]) for text in texts("agreement", 3000) for sentence in text.rstrip(".").split(". ")
    }
    assert len(told) > 3000
    assert not any(is_held_out(each) for each in told)
    nouns = {}
    for split in ("discovery", "evaluation"):
        prompts = agreement(WORDS, seed=0, split=split)
        assert all(is_held_out(tuple(text.split())) for text in prompts.texts or ())
        nouns[split] = {word for name in ("subject", "attractor") for word in words_at(prompts, WORDS, name)}
        assert len(nouns[split]) == 20
    assert not nouns["discovery"] & nouns["evaluation"]


def test_the_seed_decides_the_prompts() -> None:
    first, again, other = (agreement(WORDS, seed=seed, n_items=20).clean.ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"shape": "round"}, "simple, phrase, clause, across, mixed"),
        ({"n_items": 60, "shape": "simple"}, "60 distinct"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        agreement(WORDS, seed=0, **parameters)  # type: ignore[arg-type]


def test_a_tokenizer_with_few_verbs_is_refused() -> None:
    with pytest.raises(BadInput, match="the tokenizer has 6 verbs as single tokens in both numbers, and 10 are needed"):
        agreement(bpe_vocabulary("agreement", 480), seed=0)
