"""Closed-book facts: the answer stands nowhere, and what is asked was never told in these words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mneme.errors import BadInput, NotApplicable
from mneme.facts import RELATIONS
from mneme.lexicon import CAPITALS
from mneme.promptset import Vocabulary
from mneme.promptsets.stored_facts import scene, stored_facts
from mneme.words import Words, is_held_out
from tests.scene_checks import answers, changed_places, words_at
from tests.scene_vocabularies import bpe_vocabulary, texts, word_vocabulary

WORDS = word_vocabulary("stored_facts")
FACTS = {subject: each.answers[subject] for each in RELATIONS.values() for subject in each.answers}


def test_there_are_a_hundred_facts_and_no_answer_answers_two_of_them() -> None:
    for relation in RELATIONS.values():
        assert len(set(relation.answers.values())) == len(relation.answers)
    assert len(FACTS) == sum(len(each.answers) for each in RELATIONS.values()) >= 100
    assert FACTS["France"] == "Paris"
    assert FACTS["Mary"] == "window"


def test_a_scene_asks_for_what_the_world_says_and_its_document_answers() -> None:
    told = scene(np.random.default_rng(0), Words(), "capital", "plain", n_remarks=0, n_questions=1)
    (question,) = told.questions
    subject = question.text.text.split()[-2]
    assert question.text.text == f"The capital of {subject} is"
    assert question.answer == CAPITALS[subject]
    assert set(question.wrong) == set(CAPITALS.values()) - {CAPITALS[subject]}
    assert told.document().text == f"The capital of {subject} is {CAPITALS[subject]}."
    assert told.binding == ()


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("stored_facts", 760)], ids=["words", "bpe"])
def test_every_prompt_asks_for_its_subject_and_never_shows_the_answer(vocabulary: Vocabulary) -> None:
    prompts = stored_facts(vocabulary, seed=0, n_items=100)
    subjects, said = words_at(prompts, vocabulary, "subject"), answers(prompts, vocabulary)
    assert [FACTS[each] for each in subjects] == said
    assert not any(answer in text.split() for answer, text in zip(said, prompts.texts or (), strict=True))
    assert not any(text.endswith(" ") for text in prompts.texts or ())
    assert prompts.clean.labels["end"].tolist() == (prompts.clean.lengths - 1).tolist()
    assert prompts.clusters is not None
    assert len(prompts.clusters.unique()) == len(set(subjects))


def test_a_tokenizer_that_splits_words_loses_their_facts_and_says_how_many() -> None:
    dropped = stored_facts(bpe_vocabulary("stored_facts", 760), seed=0, n_items=100).dropped
    assert dropped["names: not a single token"] > 0
    assert "names: not a single token" not in stored_facts(WORDS, seed=0, n_items=100).dropped


def test_the_corrupt_prompt_names_another_subject_of_the_relation_and_nothing_else_changes() -> None:
    prompts = stored_facts(WORDS, seed=0, n_items=100)
    assert prompts.corrupt is not None
    for item in range(100):
        assert changed_places(prompts, item) == [int(prompts.clean.labels["subject"][item])]
        other = WORDS.tokenizer.decode(int(prompts.corrupt.ids[item, prompts.clean.labels["subject"][item]]))
        assert any(
            {other, words_at(prompts, WORDS, "subject")[item]} <= set(each.answers) for each in RELATIONS.values()
        )


@pytest.mark.parametrize(("relation", "n_answers"), [("capital", len(CAPITALS)), ("password", 63)])
def test_chance_is_one_among_all_answers_of_the_relation(relation: str, n_answers: int) -> None:
    prompts = stored_facts(WORDS, seed=0, n_items=50, relation=relation)
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / n_answers)
    assert prompts.wrong_ids is not None
    assert prompts.wrong_ids.shape == (50, n_answers - 1)


def test_training_tells_every_fact_plainly_but_no_subject_in_a_phrasing_that_is_held_out() -> None:
    told = " ".join(texts("stored_facts", 3000))
    for relation in RELATIONS.values():
        for subject, answer in relation.answers.items():
            plain, *others = (each.format(subject=subject) for each in relation.phrasings)
            assert f"{plain} {answer}." in told
            for phrasing, text in zip(relation.phrasings[1:], others, strict=True):
                assert (f"{text} {answer}." in told) is not is_held_out((phrasing, subject))


@pytest.mark.parametrize("split", ["discovery", "evaluation"])
def test_what_is_asked_stands_in_no_training_document(split: str) -> None:
    told = " ".join(texts("stored_facts", 3000))
    for text in stored_facts(WORDS, seed=3, split=split).texts or ():
        assert text.split(". ")[-1] not in told


def test_discovery_and_evaluation_share_no_subject_no_answer_and_no_bystander() -> None:
    one, other = (stored_facts(WORDS, seed=0, split=split) for split in ("discovery", "evaluation"))
    assert not set(words_at(one, WORDS, "subject")) & set(words_at(other, WORDS, "subject"))
    assert not set(answers(one, WORDS)) & set(answers(other, WORDS))
    assert not {text.split()[0] for text in one.texts or ()} & {text.split()[0] for text in other.texts or ()}


def test_plain_prompts_ask_every_subject_of_the_split_in_the_words_of_training() -> None:
    prompts = stored_facts(WORDS, seed=0, n_items=24, relation="capital", phrasing="plain", n_remarks=0)
    assert sorted(answers(prompts, WORDS)) == sorted(list(CAPITALS.values())[1::2])
    assert {text.split(" of ")[0] for text in prompts.texts or ()} == {"The capital"}


def test_a_document_asks_for_different_subjects_and_its_remarks_are_on_others() -> None:
    rng, words = np.random.default_rng(0), Words()
    for _ in range(200):
        told = scene(rng, words)
        subjects = [next(iter(_words_of(each.text.text))) for each in told.questions]
        assert len(set(subjects)) == len(subjects)
        assert not set(told.context.text.split()) & set(subjects)


def _words_of(text: str) -> set[str]:
    return set(text.split()) & set(FACTS)


def test_the_seed_decides_the_prompts() -> None:
    first, again, other = (stored_facts(WORDS, seed=seed, n_items=20).clean.ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_items": 25, "relation": "capital", "phrasing": "plain", "n_remarks": 0}, "25 distinct prompts"),
        ({"relation": "river"}, "capital, password, mixed"),
        ({"phrasing": "odd"}, "new, plain"),
        ({"n_remarks": -1}, "n_remarks"),
        ({"split": "test"}, "train, discovery, evaluation"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        stored_facts(WORDS, seed=0, **parameters)  # type: ignore[arg-type]


def test_a_tokenizer_that_splits_all_names_is_refused() -> None:
    with pytest.raises(BadInput, match="single tokens in the evaluation split"):
        stored_facts(bpe_vocabulary("stored_facts", 480), seed=0)


def test_a_model_without_tokenizer_has_no_such_prompts() -> None:
    with pytest.raises(NotApplicable):
        stored_facts(Vocabulary(300, 128, "none", None, frozenset()), seed=0)
