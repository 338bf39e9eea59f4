"""Colored objects: the color of the one thing asked for, among others of other colors."""

from __future__ import annotations

import numpy as np

from mneme.arguments import whole_number
from mneme.bindings import bound
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

SURFACES = ("table", "desk", "floor")
SEEINGS = ("there is", "I see", "you see")
ASKED = "What color is the {asked}? A:"
_MOST_OBJECTS = 6

Pair = tuple[str, str]  # an object and its color


@promptset(needs_tokenizer=True, source="Merullo et al. 2023; METHODS 5c")
def colored_objects(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_shots: int = 1,
    n_objects: int = 3,
    elsewhere: bool = True,
) -> Promptset:
    """'Q: On the table, there is a red pen, a blue cup, and a green hat. What color is the cup? A:' -> blue.

    n_shots: 0, or 1 for a solved example in front of other objects, whose colors may come again.
    elsewhere: one of the colors and one of the objects are named once more, drawn without regard to what is asked, so
    that neither what stands twice nor what stands last gives the answer away.
    Corrupt: another of the objects is asked for (the paper's `mindiff`), one token away.
    Labels: correct_color, correct_object, wrong_color_0.., wrong_object_0.. in the list, asked, end.
    Facts: n_shots, n_objects, elsewhere, split, chance (1 / n_objects: a guess in the list, which is more than a guess
    among all colors of the prompt). Wrong answers: every other color of the prompt.
    Departs from the paper: colors are lower-case words, sentences stand on one line, surfaces and objects are others,
    the example may share colors with the question, and `elsewhere`; without it the prompts are nearest to the paper's.
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "colored_objects"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_shots = whole_number(f"{place}.n_shots", n_shots, 0, 1)
    n_objects = whole_number(f"{place}.n_objects", n_objects, 2, _MOST_OBJECTS)
    if not isinstance(elsewhere, bool):
        raise BadInput(f"{place}.elsewhere is {elsewhere!r}: give true or false")
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {
        "n_shots": n_shots,
        "n_objects": n_objects,
        "elsewhere": elsewhere,
        "split": split,
        "chance": {"answer_accuracy": 1 / n_objects},
    }
    return promptset_of_scenes(
        SceneReader(vocabulary, place),
        lambda: scene(rng, words, n_shots, n_objects, elsewhere),
        n_items,
        facts,
        words.rejected,
    )


def scene(
    rng: np.random.Generator,
    words: Words,
    n_shots: int | None = None,
    n_objects: int | None = None,
    elsewhere: bool | None = None,
) -> Scene:
    """One scene; None draws the difficulty. Its binding is the object asked for first with its color."""
    n_shots = int(rng.integers(2)) if n_shots is None else n_shots
    n_objects = int(rng.integers(2, 5)) if n_objects is None else n_objects
    elsewhere = bool(rng.integers(2)) if elsewhere is None else elsewhere
    example, shot_pairs = _example(rng, words, n_objects) if n_shots else (Told(""), [])
    pairs, asked = _pairs(rng, words, n_objects, but=[thing for thing, _ in shot_pairs])
    listing, template = _listing(rng, pairs, asked)
    parts = [example, Told("Q:"), listing]
    if elsewhere:
        parts.insert(int(rng.integers(2, 4)), _remark(rng, words, pairs))
    context = joined(parts)
    other = (asked + int(rng.integers(1, n_objects))) % n_objects
    colors = dict.fromkeys(color for _, color in (*shot_pairs, *pairs))
    order = [asked, *(index for index in rng.permutation(n_objects) if index != asked and words.allows(pairs[index]))]
    questions = tuple(
        Question(
            told(ASKED if index == asked else f"Q: {ASKED}", asked=pairs[index][0]),
            answer=pairs[index][1],
            wrong=tuple(color for color in colors if color != pairs[index][1]),
        )
        for index in order
    )
    return Scene(
        context=context,
        questions=questions,
        corrupt=joined([context, told(ASKED, asked=pairs[other][0])]),
        binding=pairs[asked],
        cluster=f"{template}.{asked}",
    )


def _pairs(rng: np.random.Generator, words: Words, n: int, but: list[str]) -> tuple[list[Pair], int]:
    """`n` objects with distinct colors, and which of them is asked for: a pair that this split allows."""
    asked = int(rng.integers(n))

    things, colors = bound(
        rng, words, lambda: [words.draw(rng, "objects", n, but), words.draw(rng, "colors", n)], asked
    )
    return list(zip(things, colors, strict=True)), asked


def _listing(rng: np.random.Generator, pairs: list[Pair], asked: int) -> tuple[Told, str]:
    """'On the table, there is a red pen, and a blue cup.', and the name of its template."""
    surface, seeing = SURFACES[rng.integers(len(SURFACES))], SEEINGS[rng.integers(len(SEEINGS))]
    parts = [Told(f"On the {surface}, {seeing}")]
    n_wrong = 0
    for index, (thing, color) in enumerate(pairs):
        name = "correct_{}" if index == asked else f"wrong_{{}}_{n_wrong}"
        n_wrong += index != asked
        slots = {name.format("color"): color, name.format("object"): thing}
        last = index == len(pairs) - 1
        template = ("and " if last else "") + ("an " if color[0] in "aeiou" else "a ")
        parts.append(told(template + " ".join(f"{{{slot}}}" for slot in slots) + ("." if last else ","), **slots))
    return joined(parts), f"{surface}.{seeing}"


def _example(rng: np.random.Generator, words: Words, n: int) -> tuple[Told, list[Pair]]:
    """A list with its question and answer, and what is in it."""
    pairs, asked = _pairs(rng, words, n, but=[])
    listing, _ = _listing(rng, pairs, asked)
    thing, color = pairs[asked]
    return Told(f"Q: {listing.text} {ASKED.format(asked=thing)} {color}."), pairs


def _remark(rng: np.random.Generator, words: Words, pairs: list[Pair]) -> Told:
    (name,) = words.draw(rng, "names", 1)
    color, thing = pairs[rng.integers(len(pairs))][1], pairs[rng.integers(len(pairs))][0]
    return Told(f"{name} likes {color} and needs the {thing}.")
