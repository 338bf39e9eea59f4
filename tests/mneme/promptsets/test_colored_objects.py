"""Colored objects: the color is read off the list, wherever it stands and whatever is named besides."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.microworld.tokenizer import word_tokenizer, words_in
from mneme.promptset import Promptset, Vocabulary
from mneme.promptsets.colored_objects import colored_objects, scene
from mneme.stats import wilson
from mneme.words import Words
from tests.scene_checks import answers, changed_places, copies_right, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary, word_vocabulary

WORDS = word_vocabulary("colored_objects")
THING = re.compile(r"\ban? (\w+) (\w+)[,.]")
LIST = r"Q: On the (?:table|desk|floor), (?:there is|I see|you see) an? \w+ \w+, an? \w+ \w+, and an? \w+ \w+\."
ASKED = r" What color is the \w+\? A:"


def made(**parameters: object) -> Promptset:
    return colored_objects(WORDS, seed=0, **{"n_items": 400, **parameters})


def solved(text: str) -> str:
    """The color of what is asked for, in the list that stands last."""
    colors: dict[str, str] = {thing: color for color, thing in THING.findall(text)}
    return colors[re.findall(r"the (\w+)\? A:$", text)[0]]


def test_a_scene_reads_as_in_the_paper() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        plain, solved_before = (scene(rng, Words(), n_shots, 3, False).prompt.text for n_shots in (0, 1))
        assert re.fullmatch(LIST + ASKED, plain)
        assert re.fullmatch(f"{LIST}{ASKED} \\w+\\. {LIST}{ASKED}", solved_before)


def test_a_vowel_takes_its_article() -> None:
    rng = np.random.default_rng(0)
    said = " ".join(scene(rng, Words()).prompt.text for _ in range(200))
    assert "an orange" in said
    assert not re.search(r"\ba orange|\ban [b-df-hj-np-tv-z]", said)


@pytest.mark.parametrize("n_shots", [0, 1])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_answer_is_the_color_in_the_last_list(n_shots: int, elsewhere: bool) -> None:
    prompts = made(n_shots=n_shots, elsewhere=elsewhere, n_items=100)
    assert prompts.texts is not None
    assert [solved(text) for text in prompts.texts] == answers(prompts, WORDS)


def test_the_solved_example_is_right_and_about_other_objects() -> None:
    texts = made(n_items=100).texts
    assert texts is not None
    for text in texts:
        example, rest = re.split(r"(?<=A: )\w+\. ", text, maxsplit=1)
        said = text[len(example) :].split(".")[0]
        assert solved(example.rstrip()) == said
        assert not {thing for _, thing in THING.findall(example)} & {thing for _, thing in THING.findall(rest)}


def test_the_labels_point_at_their_words() -> None:
    prompts = made(n_items=100)
    assert words_at(prompts, WORDS, "correct_color") == answers(prompts, WORDS)
    assert words_at(prompts, WORDS, "correct_object") == words_at(prompts, WORDS, "asked")
    assert bool((prompts.clean.labels["correct_object"] == prompts.clean.labels["correct_color"] + 1).all())
    assert set(words_at(prompts, WORDS, "end")) == {":"}
    wrong = [set(words_at(prompts, WORDS, f"wrong_color_{index}")) for index in range(2)]
    assert all(each <= set(LEXICON["colors"]) for each in wrong)


def test_wrong_answers_are_all_other_colors_of_the_prompt() -> None:
    prompts = made(n_items=50)
    assert prompts.texts is not None
    assert prompts.wrong_ids is not None
    tokenizer = WORDS.tokenizer
    assert tokenizer is not None
    for text, correct, ids in zip(prompts.texts, answers(prompts, WORDS), prompts.wrong_ids, strict=True):
        wrong = {tokenizer.decode([int(each)]) for each in ids if each >= 0}
        assert wrong == set(words_in(text)) & set(LEXICON["colors"]) - {correct}


def test_a_guess_in_the_list_is_the_chance() -> None:
    assert made(n_items=5).facts["chance"]["answer_accuracy"] == pytest.approx(1 / 3)
    assert made(n_items=5, n_objects=2).facts["chance"]["answer_accuracy"] == pytest.approx(1 / 2)


def test_every_place_of_the_list_is_asked_as_often() -> None:
    prompts = made(n_shots=0, elsewhere=False)
    wrong = (prompts.clean.labels[f"wrong_color_{index}"] for index in range(2))
    place = torch.stack([prompts.clean.labels["correct_color"] > each for each in wrong]).sum(dim=0)
    for number in range(3):
        low, high = wilson(int((place == number).sum()), len(prompts))
        assert low < 1 / 3 < high


@pytest.mark.parametrize("n_shots", [0, 1])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_no_copying_of_a_color_beats_a_guess_in_the_list(n_shots: int, elsewhere: bool) -> None:
    assert all(low <= 1 / 3 for low, _ in copies_right(made(n_shots=n_shots, elsewhere=elsewhere)).values())


def test_what_is_named_elsewhere_does_not_tell_what_is_asked() -> None:
    prompts = made(n_shots=0)
    assert prompts.texts is not None
    named = [re.findall(r"likes (\w+) and needs the (\w+)\.", text)[0] for text in prompts.texts]
    hits = sum(color == right for (color, _), right in zip(named, answers(prompts, WORDS), strict=True))
    asked = sum(thing == right for (_, thing), right in zip(named, words_at(prompts, WORDS, "asked"), strict=True))
    for count in (hits, asked):
        low, high = wilson(count, len(prompts))
        assert low < 1 / 3 < high


def test_corrupt_asks_for_another_object_and_changes_nothing_else() -> None:
    prompts = made(n_items=100)
    assert prompts.corrupt is not None
    for item, right in enumerate(answers(prompts, WORDS)):
        assert changed_places(prompts, item) == [int(prompts.clean.labels["asked"][item])]
        other = text_of(WORDS, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        assert solved(re.sub(r" ([.,:?])", r"\1", other)) != right


def test_the_held_out_splits_share_no_color_object_or_name() -> None:
    said = [set(words_in(" ".join(made(split=split).texts or ()))) for split in ("discovery", "evaluation")]
    assert not said[0] & said[1] & {*LEXICON["colors"], *LEXICON["objects"], *LEXICON["names"]}


def test_training_shows_every_object_only_in_colors_that_are_not_held_out() -> None:
    rng, words = np.random.default_rng(0), Words("train")
    for _ in range(200):
        pairs = THING.findall(scene(rng, words).document().text)
        assert all(words.allows(pair) for pair in pairs)


def test_words_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = colored_objects(bpe_vocabulary("colored_objects", vocab_size=520), seed=0, n_items=20, n_objects=2)
    assert prompts.dropped["names: not a single token"] > 0
    assert len(prompts) == 20


def test_more_prompts_than_can_be_told_are_refused() -> None:
    few = ["pen", "cup", "plate", "spoon", "red", "blue", "black", "white"]  # of which evaluation has every other one
    said = words_in("Q: On the table desk floor there is I see you a an and What color A . , ?")
    tokenizer = word_tokenizer([*few, *said], 64)
    vocabulary = Vocabulary(len(tokenizer), 64, "native", 0, frozenset({0, 1, 2}), tokenizer)
    with pytest.raises(BadInput, match="distinct prompts are asked for"):
        colored_objects(vocabulary, seed=0, n_items=37, n_shots=0, n_objects=2, elsewhere=False)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_items": 0}, "colored_objects.n_items is 0"),
        ({"n_shots": 2}, "colored_objects.n_shots is 2: give a whole number from 0 to 1"),
        ({"n_objects": 1}, "colored_objects.n_objects is 1"),
        ({"elsewhere": "no"}, "colored_objects.elsewhere is 'no': give true or false"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**parameters)
