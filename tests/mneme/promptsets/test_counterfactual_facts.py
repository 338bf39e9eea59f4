"""Capitals exchanged in a story: the context names every city that could be said, and only the country decides."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.lexicon import CAPITALS
from mneme.promptset import Vocabulary
from mneme.promptsets.counterfactual_facts import counterfactual_facts, scene
from mneme.words import Words, is_held_out
from tests.scene_checks import answers, changed_places, copies_right, words_at
from tests.scene_vocabularies import bpe_vocabulary, texts, word_vocabulary

WORDS = word_vocabulary("counterfactual_facts")
STATEMENT = re.compile(r"[Tt]he capital of (\w+) is (\w+)\.")


def test_a_scene_with_one_statement_says_the_capital_of_a_country_that_is_not_named() -> None:
    told = scene(np.random.default_rng(0), Words(), n_stated=1, n_remarks=0)
    country, city = told.binding
    assert re.fullmatch(rf"In this \w+, the capital of {country} is {city}\.", told.context.text)
    (question,) = told.questions
    assert question.text.text == f"The capital of {country} is"
    assert question.answer == city
    assert question.wrong == (CAPITALS[country],)
    assert city in set(CAPITALS.values()) - {CAPITALS[country]}
    assert told.document().text == f"{told.context.text} The capital of {country} is {city}."


def test_a_scene_with_several_statements_exchanges_their_capitals() -> None:
    rng = np.random.default_rng(0)
    for n_stated in (2, 3, 4):
        told = scene(rng, Words(), n_stated=n_stated)
        said = dict(STATEMENT.findall(told.context.text))
        assert len(said) == n_stated
        assert sorted(said.values()) == sorted(CAPITALS[each] for each in said)
        assert not any(CAPITALS[country] == city for country, city in said.items())
        for question in told.questions:
            country = question.text.text.split()[-2]
            assert question.answer == said[country]
            assert question.wrong[0] == CAPITALS[country]
            assert sorted([question.answer, *question.wrong]) == sorted(said.values())


@pytest.mark.parametrize("vocabulary", [WORDS, bpe_vocabulary("counterfactual_facts", 800)], ids=["words", "bpe"])
def test_a_careful_reader_finds_every_answer(vocabulary: Vocabulary) -> None:
    prompts = counterfactual_facts(vocabulary, seed=0, n_items=100)
    subjects = words_at(prompts, vocabulary, "subject")
    assert words_at(prompts, vocabulary, "question_subject") == subjects
    said = answers(prompts, vocabulary)
    assert words_at(prompts, vocabulary, "context_answer") == said
    for text, subject, answer in zip(prompts.texts or (), subjects, said, strict=True):
        assert dict(STATEMENT.findall(text))[subject] == answer
        assert text.endswith(f"The capital of {subject} is")
    assert prompts.wrong_ids is not None
    memorised = [vocabulary.tokenizer.decode(int(each)).strip() for each in prompts.wrong_ids[:, 0]]
    assert memorised == [CAPITALS[each] for each in subjects]


def test_the_corrupt_prompt_says_the_truth_in_one_word_and_hides_the_answer() -> None:
    for n_stated in (1, 3):
        prompts = counterfactual_facts(WORDS, seed=0, n_items=60, n_stated=n_stated)
        assert prompts.corrupt is not None
        assert prompts.wrong_ids is not None
        assert prompts.correct_ids is not None
        for item in range(60):
            place = int(prompts.clean.labels["context_answer"][item])
            assert changed_places(prompts, item) == [place]
            assert prompts.corrupt.ids[item, place] == prompts.wrong_ids[item, 0]
            assert prompts.correct_ids[item, 0] not in prompts.corrupt.ids[item]


def test_only_cued_prompts_say_that_it_is_a_story() -> None:
    cued, uncued = (counterfactual_facts(WORDS, seed=0, n_items=50, cue=cue) for cue in ("cued", "uncued"))
    assert all(text.startswith("In this ") for text in cued.texts or ())
    assert all(text.startswith("The capital of ") and "In this" not in text for text in uncued.texts or ())
    assert uncued.facts["cue"] == "uncued"
    assert all(text.startswith("In this ") for text in texts("counterfactual_facts", 1000))


def test_copying_the_first_last_or_most_frequent_city_stays_at_chance() -> None:
    prompts = counterfactual_facts(WORDS, seed=1, n_items=400)
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 3)
    found = copies_right(prompts)
    assert found["first"][0] <= 1 / 3 <= found["first"][1]
    assert found["last"][0] <= 1 / 3 <= found["last"][1]
    assert found["most_frequent"][1] < 1 / 3  # every city stands there once


def test_the_asked_statement_stands_in_every_place_equally_often() -> None:
    prompts = counterfactual_facts(WORDS, seed=2, n_items=400)
    places = np.unique(prompts.clean.labels["subject"].numpy(), return_counts=True)[1]
    assert len(places) == 3
    assert places.min() > 100


def test_with_one_statement_the_rival_is_the_memorised_answer_alone() -> None:
    prompts = counterfactual_facts(WORDS, seed=0, n_items=50, n_stated=1)
    assert prompts.facts["chance"]["answer_accuracy"] == 0.5
    assert prompts.wrong_ids is not None
    assert not any(wrong in row for wrong, row in zip(prompts.wrong_ids[:, 0], prompts.clean.ids, strict=True))


def test_training_never_says_a_held_out_pair_and_the_prompts_ask_only_those() -> None:
    told = {pair for text in texts("counterfactual_facts", 3000) for pair in STATEMENT.findall(text)}
    assert len(told) > 1000
    assert not any(is_held_out(pair) for pair in told)
    for split in ("discovery", "evaluation"):
        prompts = counterfactual_facts(WORDS, seed=0, split=split)
        asked = set(zip(words_at(prompts, WORDS, "subject"), answers(prompts, WORDS), strict=True))
        assert all(is_held_out(pair) for pair in asked)
        assert not asked & told


def test_discovery_and_evaluation_share_no_country_and_no_city() -> None:
    one, other = (
        {
            word
            for text in counterfactual_facts(WORDS, seed=0, split=split).texts or ()
            for pair in STATEMENT.findall(text)
            for word in pair
        }
        for split in ("discovery", "evaluation")
    )
    assert not one & other
    assert min(len(one), len(other)) > 40


def test_the_seed_decides_the_prompts() -> None:
    first, again, other = (counterfactual_facts(WORDS, seed=seed, n_items=20).clean.ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"cue": "perhaps"}, "cued, uncued"),
        ({"n_stated": 0}, "n_stated"),
        ({"n_stated": 25}, "25 distinct countries are asked for"),
        ({"n_items": 150, "n_stated": 1, "n_remarks": 0, "cue": "uncued"}, "150 distinct prompts"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        counterfactual_facts(WORDS, seed=0, **parameters)  # type: ignore[arg-type]


def test_a_tokenizer_that_splits_the_countries_is_refused() -> None:
    with pytest.raises(BadInput, match="use a promptset that fits this model"):
        counterfactual_facts(bpe_vocabulary("counterfactual_facts", 450), seed=0)
