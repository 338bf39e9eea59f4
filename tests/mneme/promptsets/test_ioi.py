"""Indirect objects: who does not give receives, in both orders of names, and copying names is not enough."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.microworld.tokenizer import words_in
from mneme.promptset import Promptset
from mneme.promptsets.ioi import CORRUPTIONS, DISTRACTORS, ioi, scene
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("ioi")
PAIR = re.compile(r"(?:Then ?, |When )(\w+) and (\w+) (?:went to|were at) the (\w+)")
GIVER = re.compile(r"(\w+) (?:gave|handed|showed) a (\w+) to$")


def solved(text: str) -> str:
    """Who of the two does not give."""
    pair, giver = PAIR.search(text), GIVER.search(text)
    assert pair is not None
    assert giver is not None
    (receiver,) = {pair.group(1), pair.group(2)} - {giver.group(1)}
    return receiver


def made(**parameters: object) -> Promptset:
    return ioi(WORDS, seed=0, **{"n_items": 400, **parameters})


def names_in(text: str) -> list[str]:
    return [word for word in words_in(text) if word in LEXICON["names"]]


def test_a_scene_reads_as_in_the_paper() -> None:
    told = scene(np.random.default_rng(4), Words(), "none")
    io, s1, place, gift = (told.prompt.text[slice(*told.prompt.spans[each])] for each in ("io", "s1", "place", "gift"))
    texts = {
        f"{opening} {s1} {giving} a {gift} to"
        for first, second in ((io, s1), (s1, io))
        for opening in (
            f"Then, {first} and {second} went to the {place}.",
            f"When {first} and {second} were at the {place},",
        )
        for giving in ("gave", "handed", "showed")
    }
    assert told.prompt.text in texts
    assert told.questions[0].answer == io
    assert told.questions[0].wrong == (s1,)
    assert told.binding == (io, s1)


@pytest.mark.parametrize("distractors", DISTRACTORS)
def test_the_answer_is_the_one_who_does_not_give(distractors: str) -> None:
    prompts = made(distractors=distractors)
    assert prompts.texts is not None
    assert [solved(text) for text in prompts.texts] == answers(prompts, WORDS)


def test_the_labels_point_at_their_words() -> None:
    prompts = made(distractors="mixed")
    assert words_at(prompts, WORDS, "io") == answers(prompts, WORDS)
    assert words_at(prompts, WORDS, "s1") == words_at(prompts, WORDS, "s2")
    assert set(words_at(prompts, WORDS, "end")) == {"to"}
    assert set(words_at(prompts, WORDS, "s1_next")) == {"and", "went", "were"}
    assert bool((prompts.clean.labels["s1_next"] == prompts.clean.labels["s1"] + 1).all())
    assert bool((prompts.clean.labels["s2"] > prompts.clean.labels["s1"]).all())


def test_names_stand_in_both_orders_as_often() -> None:
    prompts = made()
    first = int((prompts.clean.labels["io"] < prompts.clean.labels["s1"]).sum())
    low, high = wilson(first, len(prompts))
    assert low < 0.5 < high


@pytest.mark.parametrize(("distractors", "counts"), [("none", [1, 2]), ("bystander", [1, 1, 2]), ("balanced", [2, 2])])
def test_distractors_set_how_often_each_name_stands(distractors: str, counts: list[int]) -> None:
    prompts = made(distractors=distractors, n_items=60)
    assert prompts.texts is not None
    for text in prompts.texts:
        names = names_in(text)
        assert sorted(names.count(name) for name in set(names)) == counts


@pytest.mark.parametrize("distractors", DISTRACTORS)
def test_no_copying_of_a_name_beats_a_guess(distractors: str) -> None:
    prompts = made(distractors=distractors)
    chance = prompts.facts["chance"]["answer_accuracy"]
    assert all(low <= chance + 0.1 for low, _ in copies_right(prompts).values())


def test_the_third_person_is_a_wrong_answer() -> None:
    prompts = made(distractors="bystander", n_items=50)
    assert prompts.wrong_ids is not None
    assert prompts.wrong_ids.shape == (50, 2)
    assert prompts.facts["chance"]["answer_accuracy"] == pytest.approx(1 / 3)


def test_abc_replaces_every_name_of_the_two_by_others() -> None:
    prompts = made(distractors="mixed", n_items=100)
    assert prompts.texts is not None
    assert prompts.corrupt is not None
    for item, text in enumerate(prompts.texts):
        other = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        pair, giver = PAIR.search(other), GIVER.search(other)
        assert pair is not None
        assert giver is not None
        three = (pair.group(1), pair.group(2), giver.group(1))
        assert len(set(three)) == 3
        assert not set(three) & set(names_in(text))


@pytest.mark.parametrize("corrupt", CORRUPTIONS[1:])
def test_another_giver_is_the_only_change(corrupt: str) -> None:
    prompts = made(corrupt=corrupt, distractors="mixed", n_items=100)
    assert prompts.corrupt is not None
    given = answers(prompts, WORDS)
    for item in range(100):
        at = int(prompts.clean.labels["s2"][item])
        assert changed_places(prompts, item) == [at]
        giver = text_of(WORDS, prompts.corrupt.ids[item], at + 1).split()[-1]
        assert (giver == given[item]) == (corrupt == "s2_to_io")


def test_the_held_out_splits_share_no_name_place_or_gift() -> None:
    said = [
        set(words_in(" ".join(made(split=split, distractors="mixed").texts or ())))
        for split in ("discovery", "evaluation")
    ]
    shared = said[0] & said[1]
    assert not shared & {*LEXICON["names"], *LEXICON["places"], *LEXICON["gifts"]}


def test_names_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = ioi(bpe_vocabulary("ioi", vocab_size=600), seed=0, n_items=20)
    assert prompts.dropped["names: not a single token"] > 0
    assert len(prompts) == 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_items": 0}, "ioi.n_items is 0"),
        ({"distractors": "all"}, "ioi.distractors is 'all': choose one of none, bystander, balanced, mixed"),
        ({"corrupt": "none"}, "ioi.corrupt is 'none': choose one of abc, s2_to_io, s2_random"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**parameters)
