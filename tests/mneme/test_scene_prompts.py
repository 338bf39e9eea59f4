"""Scenes become aligned prompts with answers and labels, and every one that cannot is counted with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mneme.errors import BadInput, NotApplicable
from mneme.microworld.tokenizer import word_tokenizer
from mneme.promptset import Promptset, Vocabulary
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told

SAID = ["Mary", "John", "Tom", "has", "a", "red", "blue", "cup", "hat", "is", "."]
TOKENIZER = word_tokenizer(SAID, 16)
VOCABULARY = Vocabulary(len(TOKENIZER), 16, "native", 0, frozenset({0, 1, 2}), TOKENIZER)


def scene(name: str = "Mary", color: str = "red", other: str = "blue", cluster: str = "one", **changes: str) -> Scene:
    """'Mary has a red cup. cup is' -> red."""

    def context(color: str) -> Told:
        return told("{name} has a {color} cup.", name=name, color=color)

    asked = told(changes.get("asked", "cup is"))
    return Scene(
        context=context(color),
        questions=(Question(asked, color, (changes.get("wrong", other),)),),
        corrupt=joined([context(changes.get("corrupt", other)), asked]),
        cluster=cluster,
    )


def prompts_of(scenes: list[Scene], n_items: int, **dropped: int) -> Promptset:
    """Prompts of the scenes in their order, again and again."""

    def endlessly() -> Iterator[Scene]:
        while True:
            yield from scenes

    source = endlessly()
    reader = SceneReader(VOCABULARY, "a test", wide=("color",), followed=("name",))
    return promptset_of_scenes(reader, lambda: next(source), n_items, {"n": 1}, dropped)


def test_a_scene_becomes_tokens_answers_and_labels() -> None:
    prompts = prompts_of([scene(), scene("John", "blue", "red", "two")], 2)
    ids = {word: TOKENIZER.convert_tokens_to_ids(word) for word in SAID}
    said = [
        [ids[word] for word in f"{name} has a {color} cup . cup is".split()]
        for name, color in (("Mary", "red"), ("John", "blue"))
    ]
    assert prompts.clean.ids.tolist() == [[0, *row] for row in said]
    assert prompts.corrupt is not None
    assert prompts.corrupt.ids[0].tolist() == [0, *said[0][:3], ids["blue"], *said[0][4:]]
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    assert prompts.correct_ids.tolist() == [[ids["red"]], [ids["blue"]]]
    assert prompts.wrong_ids.tolist() == [[ids["blue"]], [ids["red"]]]
    labels = {name: positions.tolist() for name, positions in prompts.clean.labels.items()}
    words = {"name": [1, 1], "name_next": [2, 2], "color": [4, 4], "color_first": [4, 4]}
    assert labels == {"end": [8, 8], "question_first": [7, 7], "question": [8, 8], **words}
    assert prompts.texts == ("Mary has a red cup. cup is", "John has a blue cup. cup is")
    assert prompts.clusters is not None
    assert prompts.clusters.tolist() == [0, 1]
    assert prompts.dropped == {}


def test_facts_hold_how_prompts_begin_and_what_a_guess_earns() -> None:
    facts = prompts_of([scene()], 1).facts
    assert (facts["n"], facts["bos_mode"], facts["offset"]) == (1, "native", 1)
    assert facts["chance"]["answer_accuracy"] == 1 / 2
    assert facts["chance"]["top1_accuracy"] == pytest.approx(1 / len(SAID))


def test_prompts_of_one_template_have_no_clusters() -> None:
    assert prompts_of([scene(), scene("John")], 2).clusters is None


def test_answers_of_different_number_are_padded() -> None:
    first, second = scene(), scene("John", wrong="blue")
    wide = Scene(second.context, (Question(second.questions[0].text, "red", ("blue", "hat")),), second.corrupt)
    wrong = prompts_of([first, wide], 2).wrong_ids
    assert wrong is not None
    assert (wrong >= 0).sum(dim=1).tolist() == [1, 2]
    assert torch.equal(wrong[0, 1:], torch.tensor([-1]))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (scene("Tom", corrupt="red blue"), "clean and corrupt differ in their number of tokens"),
        (scene("Tom", corrupt="red"), "clean and corrupt are the same"),
        (scene("Tom", wrong="red"), "a correct and a wrong answer are the same token"),
        (scene("Tom", wrong="cup hat"), "an answer is not a single token"),
        (scene("Tom", wrong="green"), "an answer is not in the vocabulary"),
        (scene("Tom", asked="cup is a cup a cup a cup a cup is"), "longer than the model's context of 16 tokens"),
        (scene("Mary"), "the same prompt came before"),
    ],
)
def test_what_cannot_be_used_is_counted_with_its_reason(broken: Scene, reason: str) -> None:
    prompts = prompts_of([scene(), broken, scene("John")], 2)
    assert len(prompts) == 2
    assert prompts.dropped == {reason: 1}


def test_what_the_caller_dropped_is_counted_too() -> None:
    assert prompts_of([scene()], 1, names=3).dropped == {"names": 3}


def test_running_out_of_prompts_names_the_commonest_reason() -> None:
    with pytest.raises(
        BadInput, match=r"3 distinct prompts are asked for and 2000 draws gave 2 .*same prompt came before"
    ):
        prompts_of([scene(), scene("John")], 3)


def test_a_name_that_ends_inside_a_token_is_rejected() -> None:
    cut = Scene(Told("Mary has a red cup.", {"name": (0, 3)}), scene().questions)
    assert prompts_of([cut, scene("John")], 1).dropped == {"a named word ends inside a token": 1}


def test_a_scene_without_question_has_no_answers() -> None:
    silent = prompts_of([Scene(Told("Mary has a red cup."), ())], 1)
    assert silent.correct_ids is None
    assert silent.wrong_ids is None
    assert "chance" not in silent.facts


def test_a_vocabulary_without_tokenizer_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="a test"):
        SceneReader(Vocabulary(10, 16, "none", None, frozenset()), "a test")


def test_the_first_question_is_a_span_of_its_own() -> None:
    prompts = prompts_of([scene()], 1)
    labels = prompts.clean.labels
    ids = prompts.clean.ids[0].tolist()
    asked = ids[int(labels["question_first"][0]) : int(labels["question"][0]) + 1]
    assert TOKENIZER.decode(asked) == "cup is"
    assert torch.equal(labels["question"], labels["end"])


def test_conditions_that_every_scene_has_come_with_the_prompts_and_are_cut_with_them() -> None:
    scenes = [
        replace(scene(), conditions={"depth": 0.5, "rare": 1.0}),
        replace(scene("John"), conditions={"depth": 1.0}),
    ]
    prompts = prompts_of(scenes, 2)
    assert {name: values.tolist() for name, values in prompts.conditions.items()} == {"depth": [0.5, 1.0]}
    assert prompts.select(torch.tensor([1])).conditions["depth"].tolist() == [1.0]


def test_a_condition_that_does_not_fit_the_prompts_is_refused() -> None:
    with pytest.raises(BadInput, match="condition 'depth' must be one float64 number per prompt"):
        replace(prompts_of([scene()], 1), conditions={"depth": torch.zeros(2, dtype=torch.float64)})
