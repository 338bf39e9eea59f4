"""Docstrings: the next argument is found by the one before it, not by its place."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.microworld.tokenizer import words_in
from mneme.promptset import Promptset
from mneme.promptsets.docstring import docstring, scene
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, copies_right, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("docstring")


def made(**parameters: object) -> Promptset:
    return docstring(WORDS, seed=0, **{"n_items": 200, **parameters})


def arguments(text: str) -> list[str]:
    return str(re.findall(r"\(self, (.*?)\):", text)[0]).split(", ")


def documented(text: str) -> list[str]:
    return re.findall(r":param (\w+):", text)


def solved(text: str) -> str:
    """The argument after the one that is documented last."""
    names = arguments(text)
    return names[names.index(documented(text)[-1]) + 1]


def test_a_scene_is_code_as_in_the_paper() -> None:
    told = scene(np.random.default_rng(0), Words(), 6, 2, 2)
    a, b, c, d, e, f = arguments(told.prompt.text)
    shape = (
        rf'def (\w+)\(self, {a}, {b}, {c}, {d}, {e}, {f}\):\n    """\1 the \w+ \w+\n\n'
        rf"    :param {c}: \w+ \w+\n    :param {d}: \w+ \w+\n    :param"
    )
    assert re.fullmatch(shape, told.prompt.text)
    assert told.questions[0].answer == e
    assert told.questions[0].wrong == (a, b, c, d, f)
    assert told.binding == (d, e)


def test_the_document_goes_on_down_the_arguments() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        told = scene(rng, Words("train"))
        text = told.document().text
        said = documented(text)
        assert said == arguments(text)[-len(said) :]
        assert '"""' in text
        assert len(told.questions) == len(said) - len(documented(told.prompt.text))


def test_the_answer_is_the_argument_after_the_documented_ones() -> None:
    prompts = made()
    assert prompts.texts is not None
    assert [solved(text) for text in prompts.texts] == answers(prompts, WORDS)
    assert all(len(documented(text)) == 2 and len(arguments(text)) == 6 for text in prompts.texts)


def test_the_labels_point_at_their_words() -> None:
    prompts = made(n_items=60)
    assert prompts.texts is not None
    assert words_at(prompts, WORDS, "answer_def") == answers(prompts, WORDS)
    before = [documented(text)[-1] for text in prompts.texts]
    assert words_at(prompts, WORDS, "previous_def") == words_at(prompts, WORDS, "previous_doc") == before
    assert set(words_at(prompts, WORDS, "previous_def_next")) == {","}
    assert set(words_at(prompts, WORDS, "end")) == {"param"}
    labels = prompts.clean.labels
    assert bool((labels["answer_def"] == labels["previous_def"] + 2).all())
    assert bool((labels["previous_doc"] > labels["answer_def"]).all())


def test_every_place_that_leaves_room_holds_the_answer_as_often() -> None:
    prompts = made(n_items=400)
    assert prompts.texts is not None
    places = [arguments(text).index(solved(text)) for text in prompts.texts]
    for place in (2, 3, 4, 5):
        low, high = wilson(places.count(place), len(places))
        assert low < 1 / 4 < high


def test_the_place_can_be_fixed_as_in_the_paper() -> None:
    prompts = made(n_items=40, n_prefix=2)
    assert prompts.texts is not None
    assert {arguments(text).index(solved(text)) for text in prompts.texts} == {4}


def test_no_copying_of_an_argument_beats_a_guess_among_those_left() -> None:
    prompts = made(n_items=400)
    assert prompts.facts["chance"]["answer_accuracy"] == 1 / 4
    assert all(low <= 1 / 4 for low, _ in copies_right(prompts).values())


def test_corrupt_names_nothing_twice_and_the_answer_nowhere() -> None:
    rng, words = np.random.default_rng(0), Words("evaluation")
    for _ in range(100):
        told = scene(rng, words, 6, 2)
        assert told.corrupt is not None
        clean, corrupt = told.prompt.text, told.corrupt.text
        names = arguments(corrupt) + documented(corrupt)
        assert len(set(names)) == len(names) == 8
        assert not set(names) & set(arguments(clean))
        hidden = "|".join({*names, *arguments(clean)})
        assert re.sub(rf"\b({hidden})\b", "_", clean) == re.sub(rf"\b({hidden})\b", "_", corrupt)


def test_the_held_out_splits_share_no_argument_or_noun() -> None:
    said = [set(words_in(" ".join(made(split=split).texts or ()))) for split in ("discovery", "evaluation")]
    assert not said[0] & said[1] & {*LEXICON["arguments"], *LEXICON["nouns"]}


def test_training_never_shows_two_neighbors_that_are_held_out() -> None:
    rng, words = np.random.default_rng(0), Words("train")
    for _ in range(200):
        names = arguments(scene(rng, words).prompt.text)
        assert all(words.allows(pair) for pair in pairwise(names))


def test_words_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = docstring(bpe_vocabulary("docstring", vocab_size=600), seed=0, n_items=20)
    assert prompts.dropped["nouns: not a single token"] > 0
    assert len(prompts) == 20


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_items": 0}, "docstring.n_items is 0"),
        ({"n_documented": 0}, "docstring.n_documented is 0"),
        ({"n_prefix": -1}, "docstring.n_prefix is -1"),
        ({"n_arguments": 3, "n_documented": 3}, "docstring.n_arguments is 3, which leaves no argument after 0"),
        ({"n_arguments": 6, "n_documented": 2, "n_prefix": 4}, "leaves no argument after 4 undocumented and 2"),
        ({"n_arguments": 200}, "200 distinct arguments are asked for"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**parameters)
