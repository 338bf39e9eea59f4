"""Entity tracking: things in labelled boxes, and the question what one box contains."""

from __future__ import annotations

from itertools import count

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.bindings import bound
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

CORRUPTIONS = ("other_box", "unused_label")
_FEWEST, _MOST = 2, 12
_MOST_IN_TRAINING = 7


@promptset(needs_tokenizer=True, source="Prakash et al. 2024; METHODS 12")
def boxes(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 300,
    split: str = "evaluation",
    n_boxes: int = 7,
    corrupt: str = "other_box",
) -> Promptset:
    """'The pen is in Box F, the cup is in Box A, ... Box A contains the' -> cup; each place is asked as often.

    corrupt: `other_box` asks for another box of the scene, which changes one token and the answer; `unused_label` asks
    for a box that is not there, so that there is no answer (the paper changes the scene as well).
    Labels: thing_0 .. and label_0 .. in the order told, thing and label of the asked box, question_label, end.
    Facts: n_boxes, corrupt, split. Wrong answers: every other thing. Clusters: the asked place.
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "boxes"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_boxes = whole_number(f"{place}.n_boxes", n_boxes, _FEWEST, _MOST)
    corrupt = one_of(f"{place}.corrupt", corrupt, CORRUPTIONS)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    number = count()
    facts = {"n_boxes": n_boxes, "corrupt": corrupt, "split": split}

    def draw() -> Scene:
        return scene(rng, words, n_boxes, next(number) % n_boxes, corrupt)

    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def scene(
    rng: np.random.Generator,
    words: Words,
    n_boxes: int | None = None,
    asked: int | None = None,
    corrupt: str = "other_box",
) -> Scene:
    """One scene; its binding is the asked label and thing. The first question asks the box told at place `asked`.

    Without arguments 2 to 7 boxes, any place first; all boxes are asked, in random order.
    """
    n_boxes = n_boxes or int(rng.integers(_FEWEST, _MOST_IN_TRAINING + 1))
    asked = int(rng.integers(n_boxes)) if asked is None else asked
    labels, things = bound(
        rng, words, lambda: [words.draw(rng, kind, n_boxes) for kind in ("labels", "objects")], asked
    )
    parts = [f"the {{thing_{each}}} is in Box {{label_{each}}}" for each in range(n_boxes)]
    slots = {f"thing_{each}": thing for each, thing in enumerate(things)}
    slots |= {f"label_{each}": label for each, label in enumerate(labels)}
    context = told(f"T{', '.join(parts)[1:]}.", **slots)
    named = {"thing": context.spans[f"thing_{asked}"], "label": context.spans[f"label_{asked}"]}
    context = Told(context.text, {**context.spans, **named})
    others = [int(each) for each in rng.permutation(n_boxes) if each != asked]
    instead = labels[others[0]] if corrupt == "other_box" else words.draw(rng, "labels", 1, but=labels)[0]
    asking = "Box {question_label} contains the"

    def question(place: int, text: Told) -> Question:
        return Question(text, answer=things[place], wrong=tuple(each for each in things if each != things[place]))

    return Scene(
        context=context,
        questions=(
            question(asked, told(asking, question_label=labels[asked])),
            *(question(each, Told(f"Box {labels[each]} contains the")) for each in others),
        ),
        corrupt=joined([context, told(asking, question_label=instead)]),
        binding=(labels[asked], things[asked]),
        cluster=f"place {asked}",
    )
