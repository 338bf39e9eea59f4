"""One test for every behavior told in scenes, so that nobody is forgotten: a module with `scene` is tested by it."""

from __future__ import annotations

import importlib
from functools import cache

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.microworld.documents import scene_of
from mneme.microworld.tokenizer import word_tokenizer, words_in
from mneme.probes.copy_baseline import TAKES, copy_baseline
from mneme.promptset import Promptset, Vocabulary, promptsets
from mneme.stats import wilson
from mneme.stories import Scene, Told
from mneme.words import Words
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

NAMES = [each for each in promptsets.names() if hasattr(importlib.import_module(f"mneme.promptsets.{each}"), "scene")]
SPLITS = ("train", "discovery", "evaluation")
MARGIN = 0.1  # by how much copying may seem better than a guess


@cache
def scenes(name: str, split: str, n: int = 80) -> tuple[Scene, ...]:
    rng, words = np.random.default_rng(0), Words(split)
    return tuple(scene_of(name)(rng, words) for _ in range(n))


@cache
def built(name: str, split: str = "evaluation", n_items: int = 200) -> Promptset:
    return promptsets.get(name).build(word_vocabulary(name), seed=0, n_items=n_items, split=split)


def decoded(prompts: Promptset, name: str, item: int, label: str) -> str:
    vocabulary = word_vocabulary(name)
    assert vocabulary.tokenizer is not None
    return vocabulary.tokenizer.decode([int(prompts.clean.ids[item, prompts.clean.labels[label][item]])]).strip()


def answers(name: str, ids: list[int]) -> list[str]:
    vocabulary = word_vocabulary(name)
    assert vocabulary.tokenizer is not None
    return [vocabulary.tokenizer.decode([each]).strip() for each in ids if each >= 0]


def text(told: Told, span: str) -> str:
    start, end = told.spans[span]
    return told.text[start:end]


def test_every_behavior_is_found() -> None:
    assert {"ioi", "needle", "agreement", "colored_objects"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_belongs_to_its_split(name: str, split: str) -> None:
    words = Words(split)
    assert all(words.allows(each.binding) for each in scenes(name, split))


@pytest.mark.parametrize("name", NAMES)
def test_no_binding_is_shared_by_two_splits(name: str) -> None:
    train, discovery, evaluation = (
        {frozenset(scene.binding) for scene in scenes(name, split) if scene.binding} for split in SPLITS
    )
    assert discovery
    assert evaluation
    assert not train & discovery
    assert not train & evaluation
    assert not discovery & evaluation


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_an_answer_is_one_word_and_never_both_right_and_wrong(name: str, split: str) -> None:
    for scene in scenes(name, split):
        assert scene.questions
        for question in scene.questions:
            assert question.answer in question.accepted
            assert question.wrong
            assert not set(question.accepted) & set(question.wrong)
            assert all(words_in(each) == [each] for each in (*question.accepted, *question.wrong))
            assert all(len(set(each)) == len(each) for each in (question.accepted, question.wrong))


@pytest.mark.parametrize("name", NAMES)
def test_a_corrupt_prompt_is_as_long_as_the_prompt_and_another_one(name: str) -> None:
    for scene in scenes(name, "evaluation"):
        if scene.corrupt is not None:
            clean, corrupt = words_in(scene.prompt.text), words_in(scene.corrupt.text)
            assert len(clean) == len(corrupt)
            assert clean != corrupt


@pytest.mark.parametrize("name", NAMES)
def test_a_named_place_holds_whole_words(name: str) -> None:
    for scene in scenes(name, "train"):
        for text in (scene.prompt, scene.document()):
            for start, end in text.spans.values():
                before, named, after = text.text[:start], text.text[start:end], text.text[end:]
                assert named == named.strip() != ""
                assert words_in(before) + words_in(named) + words_in(after) == words_in(text.text)


@pytest.mark.parametrize("name", NAMES)
def test_a_document_says_the_prompt_and_then_every_answer(name: str) -> None:
    for scene in scenes(name, "train"):
        document = scene.document()
        said = [text(document, f"answer_{number}") for number in range(len(scene.questions))]
        assert said == [question.answer for question in scene.questions]
        assert words_in(document.text)[: len(words_in(scene.prompt.text))] == words_in(scene.prompt.text)


@pytest.mark.parametrize("name", NAMES)
def test_the_random_generator_alone_decides_on_a_scene(name: str) -> None:
    first, again, other = (scene_of(name)(np.random.default_rng(seed), Words("train")) for seed in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize("name", NAMES)
def test_prompts_keep_their_answers_and_places_in_tokens(name: str) -> None:
    prompts = built(name)
    assert len(prompts) == 200
    assert prompts.texts is not None
    assert len(set(prompts.texts)) == 200
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    for item in range(0, 200, 10):
        said = set(words_in(prompts.texts[item]))
        assert {decoded(prompts, name, item, label) for label in prompts.clean.labels} <= said
        correct, wrong = (answers(name, each[item].tolist()) for each in (prompts.correct_ids, prompts.wrong_ids))
        assert correct
        assert wrong
        assert not set(correct) & set(wrong)
    assert decoded(prompts, name, 0, "end") == words_in(prompts.texts[0])[-1]


@pytest.mark.parametrize("name", NAMES)
def test_copying_a_candidate_by_its_place_or_count_is_no_better_than_a_guess(name: str) -> None:
    prompts = built(name)
    chance = prompts.facts["chance"]["answer_accuracy"]
    assert 0 < chance < 1
    for take in TAKES:
        credit = float(copy_baseline(prompts, take=take).sum())
        low, _ = wilson(round(credit), len(prompts))
        assert low <= chance + MARGIN, f"{take}: {credit / len(prompts):.2f} against {chance:.2f}"


@pytest.mark.parametrize("name", NAMES)
def test_the_two_held_out_splits_share_no_prompt_and_no_answered_binding(name: str) -> None:
    discovery, evaluation = (built(name, split, 40).texts for split in ("discovery", "evaluation"))
    assert discovery is not None
    assert evaluation is not None
    assert not set(discovery) & set(evaluation)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_of_parts_of_words_gives_prompts_too(name: str) -> None:
    prompts = promptsets.get(name).build(bpe_vocabulary(name), seed=0, n_items=20)
    assert len(prompts) == 20
    assert all(count > 0 for count in prompts.dropped.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_without_the_words_is_refused_in_a_sentence(name: str) -> None:
    tokenizer = word_tokenizer(["the", "a"], 512)
    bare = Vocabulary(len(tokenizer), 512, "native", 0, frozenset({0, 1, 2}), tokenizer)
    with pytest.raises(BadInput, match="use a promptset that fits this model"):
        promptsets.get(name).build(bare, seed=0, n_items=20)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_split_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="split is 'all': choose one of train, discovery, evaluation"):
        promptsets.get(name).build(word_vocabulary(name), seed=0, split="all")
