"""Needles over a grid: one haystack for all lengths and depths, alike up to the needle, and no shortcut by place."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from mneme.errors import BadInput
from mneme.promptset import Promptset
from mneme.promptsets.needle_grid import needle_grid
from mneme.shared_prefix import prefix_tree
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("needle")
NEEDLE = re.compile(
    r"The (?:secret code|magic word|hidden sign) of (\w+) is (\w+(?: \w+)*?)(?:\.| today| now|, | and| again)"
)


@cache
def grid(kind: str = "words", **parameters: int | str) -> Promptset:
    vocabulary = WORDS if kind == "words" else bpe_vocabulary("needle")
    return needle_grid(vocabulary, seed=0, **({"n_lengths": 5, "n_depths": 4} | parameters))


def solved(text: str) -> tuple[str, dict[str, str]]:
    """The asked key, and the value of each key: what a careful reader finds."""
    return text.split()[-2], dict(NEEDLE.findall(text))


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_careful_reader_finds_every_answer(kind: str) -> None:
    prompts = grid(kind)
    vocabulary = WORDS if kind == "words" else bpe_vocabulary("needle")
    assert len(prompts) == 60
    for text, answer, key, value in zip(
        prompts.texts,
        answers(prompts, vocabulary),
        words_at(prompts, vocabulary, "key"),
        words_at(prompts, vocabulary, "value"),
        strict=True,
    ):
        asked, values = solved(text)
        assert len(values) == 3
        assert (key, value, answer) == (asked, values[asked], values[asked])
        assert len(re.findall(rf"\b{answer}\b", text)) == 1
    assert words_at(prompts, vocabulary, "question_key") == words_at(prompts, vocabulary, "key")
    assert set(words_at(prompts, vocabulary, "question_first")) == {"So"}


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_every_length_meets_every_depth_for_every_needle(kind: str) -> None:
    prompts = grid(kind)
    cells = set(zip(prompts.conditions["length"].tolist(), prompts.conditions["depth"].tolist(), strict=True))
    assert len(cells) == 20
    assert sorted(prompts.conditions["depth"].unique().tolist()) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert prompts.conditions["length"].unique().tolist() == prompts.facts["lengths"] == [163, 224, 286, 348, 409]
    assert prompts.clusters.bincount().tolist() == [20, 20, 20]
    short = prompts.conditions["length"] - prompts.clean.lengths
    assert 0 <= float(short.min()) <= float(short.max()) < 18


def test_prompts_of_one_haystack_are_alike_up_to_their_needle() -> None:
    prompts = grid()
    for needle in range(3):
        group = prompts.select(prompts.clusters == needle)
        longest = int((group.clean.lengths * (group.conditions["depth"] == 1)).argmax())
        for item, key in enumerate(group.clean.labels["key"].tolist()):
            before = slice(0, key - 4)  # The secret code of
            assert torch.equal(group.clean.ids[item, before], group.clean.ids[longest, before])


def test_the_needle_stands_at_its_depth_after_a_sentence() -> None:
    prompts = needle_grid(WORDS, seed=1, n_lengths=2, n_depths=5, n_needles_drawn=2, longest=500)
    for item, text in enumerate(prompts.texts):
        asked = solved(text)[0]
        before = text[: re.search(rf"The \w+ \w+ of {asked} is", text).start()]
        assert before.rstrip().endswith(".")
        hay = int(prompts.clean.lengths[item]) - 40
        share = (int(prompts.clean.labels["key"][item]) - 8) / hay
        assert abs(share - float(prompts.conditions["depth"][item])) < 0.2


def test_sharing_prefixes_leaves_a_fraction_of_the_tokens() -> None:
    prompts = needle_grid(WORDS, seed=0)
    assert len(prompts) == 600
    tree = prefix_tree(prompts.clean, prompts.clean.lengths - 1)
    assert tree.n_tokens < 0.25 * int(prompts.clean.lengths.sum())


def test_the_asked_needle_is_the_first_the_last_or_between_in_turn() -> None:
    prompts = grid()
    deep = prompts.conditions["depth"] == 1
    order = {needle: set() for needle in range(3)}
    for item in torch.nonzero(deep)[:, 0].tolist():
        asked, values = solved(prompts.texts[item])
        order[int(prompts.clusters[item])].add(list(values).index(asked))
    assert order == {0: {2}, 1: {1}, 2: {0}}
    assert all(
        low <= 0.45
        for low, _ in copies_right(needle_grid(WORDS, seed=2, n_lengths=4, n_depths=4, n_needles_drawn=9)).values()
    )


def test_the_corrupt_value_or_key_is_the_only_change() -> None:
    for corrupt, label in (("value", "value"), ("key", "question_key")):
        prompts = grid(corrupt=corrupt)
        for item in range(0, 60, 7):
            assert changed_places(prompts, item) == [int(prompts.clean.labels[label][item])]
            text = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.clean.lengths[item]))
            asked, values = solved(text)
            assert (asked in values) == (corrupt == "value")
            assert len(values) == 3
            if corrupt == "value":
                assert int(prompts.correct_ids[item, 0]) not in prompts.corrupt.ids[item]


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_value_of_several_words_is_a_span_whose_first_word_is_the_answer(kind: str) -> None:
    vocabulary = WORDS if kind == "words" else bpe_vocabulary("needle")
    prompts = grid(kind, n_words=4)
    labels = prompts.clean.labels
    assert (labels["value"] - labels["value_first"] == 3).all()
    for item, text in enumerate(prompts.texts):
        asked, values = solved(text)
        span = prompts.clean.ids[item, labels["value_first"][item] : labels["value"][item] + 1]
        assert vocabulary.tokenizer.decode(span).split() == values[asked].split()
        assert len(set(" ".join(values.values()).split())) == 12
        assert int(prompts.correct_ids[item, 0]) == int(span[0])
        assert int(span[0]) not in prompts.wrong_ids[item]


def test_every_rival_in_the_text_is_a_wrong_answer() -> None:
    prompts = grid()
    for item, text in enumerate(prompts.texts):
        asked, values = solved(text)
        wrong = {WORDS.tokenizer.decode(int(each)) for each in prompts.wrong_ids[item] if each >= 0}
        assert set(values.values()) - {values[asked]} <= wrong
        assert values[asked] not in wrong


def test_cells_that_give_one_prompt_are_counted_and_kept_once() -> None:
    prompts = needle_grid(WORDS, seed=0, n_lengths=2, n_depths=10, n_needles_drawn=1, shortest=60, longest=70)
    assert prompts.dropped["the same prompt as in another cell of the grid"] == 20 - len(prompts)
    assert len(set(prompts.texts)) == len(prompts) < 20


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_needles": 1}, "needle_grid.n_needles is 1: give a whole number from 2 to 8"),
        ({"longest": 513}, "needle_grid.longest is 513: give a whole number from 1 to 512"),
        ({"shortest": 20}, "needle_grid.shortest leaves no room: the needles and the question alone are"),
        ({"shortest": 300, "longest": 200}, "needle_grid.shortest is 300: give a whole number from 1 to 200"),
        ({"n_depths": 0}, "needle_grid.n_depths is 0"),
        ({"n_words": 13}, "needle_grid.n_words is 13"),
        ({"corrupt": "order"}, "choose one of value, key"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        needle_grid(WORDS, seed=0, **parameters)
