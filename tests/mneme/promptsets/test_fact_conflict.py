"""One fact that the context gets wrong: a careful reader finds both answers, the corrupt prompt hides them."""

from __future__ import annotations

import re

import pytest
import torch

from mneme.errors import BadInput
from mneme.fact_conflicts import question_alone
from mneme.facts import RELATIONS
from mneme.promptset import Promptset, Vocabulary
from mneme.promptsets.fact_conflict import fact_conflict
from mneme.words import is_held_out
from tests.scene_checks import answers, changed_places, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("stored_facts")


def memorised(prompts: Promptset, vocabulary: Vocabulary) -> list[str]:
    assert prompts.wrong_ids is not None
    assert vocabulary.tokenizer is not None
    return [vocabulary.tokenizer.decode(int(each)).strip() for each in prompts.wrong_ids[:, 0]]


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("stored_facts", 800)], ids=["words", "bpe"])
def test_a_careful_reader_finds_both_answers(vocabulary: Vocabulary) -> None:
    prompts = fact_conflict(vocabulary, seed=0, n_items=100, relation="capital", n_remarks=1)
    subjects = words_at(prompts, vocabulary, "question_subject")
    assert words_at(prompts, vocabulary, "subject") == subjects
    assert words_at(prompts, vocabulary, "context_answer") == answers(prompts, vocabulary)
    assert memorised(prompts, vocabulary) == [RELATIONS["capital"].answers[each] for each in subjects]
    known = zip(prompts.texts or (), subjects, answers(prompts, vocabulary), prompts.conditions["wording"], strict=True)
    for text, subject, answer, wording in known:
        question = RELATIONS["capital"].phrasings[int(wording)].format(subject=subject)
        assert re.fullmatch(rf"{question} {answer}\. \w+ was near the \w+\. {question}", text)


def test_the_relation_and_the_wording_are_conditions() -> None:
    prompts = fact_conflict(WORDS, seed=0, relation="mixed", wording="mixed", n_items=150)
    assert set(prompts.conditions["relation"].tolist()) == {0.0, 1.0}
    assert set(prompts.conditions["wording"].tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    password = RELATIONS["password"].answers
    for relation, subject, answer in zip(
        prompts.conditions["relation"], words_at(prompts, WORDS, "subject"), memorised(prompts, WORDS), strict=True
    ):
        assert (subject in password and password[subject] == answer) == bool(relation)
    plain, others = (fact_conflict(WORDS, seed=0, wording=each, n_items=40) for each in ("plain", "paraphrased"))
    assert set(plain.conditions["wording"].tolist()) == {0.0}
    assert set(others.conditions["wording"].tolist()) == {1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("corrupted", ["both", "context", "subject"])
def test_the_corrupt_prompt_replaces_the_named_sources_and_nothing_else(corrupted: str) -> None:
    prompts = fact_conflict(WORDS, seed=0, n_items=60, corrupted=corrupted)
    assert prompts.corrupt is not None
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    labels = prompts.clean.labels
    for item in range(60):
        subjects = [int(labels["subject"][item]), int(labels["question_subject"][item])]
        answer = int(labels["context_answer"][item])
        changed = ([] if corrupted == "context" else subjects) + ([] if corrupted == "subject" else [answer])
        assert changed_places(prompts, item) == sorted(changed)
        row = prompts.corrupt.ids[item]
        assert row[subjects[0]] == row[subjects[1]]
        assert prompts.wrong_ids[item, 0] not in row
        assert bool((row == prompts.correct_ids[item, 0]).any()) == (corrupted == "subject")


def test_in_the_corrupt_prompt_neither_answer_is_the_memorised_one_of_its_own_subject() -> None:
    prompts = fact_conflict(WORDS, seed=0, n_items=60)
    assert prompts.corrupt is not None
    for item in range(60):
        text = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        subject = text.split(" ")[int(prompts.clean.labels["subject"][item]) - 1]
        assert RELATIONS["capital"].answers[subject] not in text.split()
        assert RELATIONS["capital"].answers[subject] not in (
            answers(prompts, WORDS)[item],
            memorised(prompts, WORDS)[item],
        )


def test_the_question_alone_says_nothing_of_the_context() -> None:
    prompts = fact_conflict(WORDS, seed=0, n_items=50, relation="mixed")
    alone = question_alone(prompts)
    assert alone is not None
    for item, subject in enumerate(words_at(prompts, WORDS, "subject")):
        relation = list(RELATIONS.values())[int(prompts.conditions["relation"][item])]
        question = relation.phrasings[int(prompts.conditions["wording"][item])].format(subject=subject)
        assert text_of(WORDS, alone.ids[item], int(alone.lengths[item])) == question
    assert torch.equal(alone.ids[:, 0], prompts.clean.ids[:, 0])


def test_prompts_ask_for_pairs_that_training_holds_out_and_cluster_by_subject() -> None:
    evaluation, discovery = (fact_conflict(WORDS, seed=0, split=each) for each in ("evaluation", "discovery"))
    for prompts in (evaluation, discovery):
        pairs = zip(words_at(prompts, WORDS, "subject"), answers(prompts, WORDS), strict=True)
        assert all(is_held_out(pair) for pair in pairs)
        subjects = words_at(prompts, WORDS, "subject")
        assert prompts.clusters is not None
        assert len(set(zip(subjects, prompts.clusters.tolist(), strict=True))) == len(set(subjects))
        assert len(set(prompts.clusters.tolist())) == len(set(subjects)) > 10
    assert not set(words_at(evaluation, WORDS, "subject")) & set(words_at(discovery, WORDS, "subject"))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"relation": "language"}, "fact_conflict.relation is 'language': choose one of capital, password, mixed"),
        ({"wording": "new"}, "fact_conflict.wording is 'new'"),
        ({"corrupted": "answer"}, "fact_conflict.corrupted is 'answer': choose one of both, context, subject"),
        ({"split": "all"}, "split is 'all': choose one of"),
        ({"n_items": 0}, "fact_conflict.n_items is 0"),
        ({"n_remarks": -1}, "fact_conflict.n_remarks is -1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        fact_conflict(WORDS, seed=0, **parameters)  # type: ignore[arg-type]
