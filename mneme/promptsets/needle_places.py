"""One needle at several depths of the same filler: the same items at every place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mneme.arguments import whole_number
from mneme.encoding import encode, tokenizer_of
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.needle import OPENING, Hay
from mneme.promptsets.needle import scene as needle_scene
from mneme.scene_groups import promptset_of_groups
from mneme.scene_prompts import SceneReader
from mneme.stories import Scene
from mneme.words import words_for

_FEWEST_PLACES = 5
_MOST_NEEDLES = 8
_MOST_DRAWS = 20


@promptset(needs_tokenizer=True, source="Liu et al. 2023 (Lost in the middle); METHODS 15, 2b")
def needle_places(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 40,
    split: str = "evaluation",
    n_tokens: int = 128,
    n_places: int = 7,
    n_needles: int = 3,
) -> Promptset:
    """The prompts of `needle`, each with its asked needle at every one of several depths.

    n_items: texts; in each the other needles and the filler stay as they are and the asked needle moves, so that places
    are compared on the same items. A text is a cluster. n_places: depths at equal distances from 0, first, to 1, last,
    moved back to the end of a sentence.
    n_tokens, n_needles, split, labels and corrupt prompts (another value in the asked needle) as `needle`.
    Condition: place, the depth. Facts: n_tokens, n_places, n_needles, split, chance (1 / n_needles: a guess among the
    needles).
    Departs from Liu et al.: sentences in place of documents.
    A text with too few sentences, in which two places would be the same, is drawn again.
    Raises: BadInput for a length that leaves no room for so many places, and as `needle`.
    """
    name = "needle_places"
    n_items = whole_number(f"{name}.n_items", n_items, 1)
    n_needles = whole_number(f"{name}.n_needles", n_needles, 2, _MOST_NEEDLES)
    n_tokens = whole_number(f"{name}.n_tokens", n_tokens, 1, vocabulary.context)
    n_places = whole_number(f"{name}.n_places", n_places, _FEWEST_PLACES)
    words = words_for(vocabulary, name, split)
    tokenizer = tokenizer_of(vocabulary, name)
    rng = np.random.default_rng(seed)
    n_told = n_tokens - (vocabulary.first_id is not None) - len(encode(tokenizer, OPENING))

    def count(text: str) -> int:
        return len(encode(tokenizer, f" {text}"))

    def placed(number: int, depth: float) -> Scene:
        told = needle_scene(np.random.default_rng(number), words, n_needles, Hay(n_told, depth, count))
        return replace(told, conditions={"place": round(depth, 4)})

    def draw() -> list[Scene]:
        for _ in range(_MOST_DRAWS):
            number = int(rng.integers(2**62))
            scenes = [placed(number, depth) for depth in np.linspace(0, 1, n_places).tolist()]
            if len({each.prompt.text for each in scenes}) == n_places:
                return scenes
        raise BadInput(
            f"{name}.n_tokens is {n_tokens}, and {_MOST_DRAWS} texts had fewer sentences than {n_places} places need: "
            "raise n_tokens or lower n_places"
        )

    chance = {"answer_accuracy": 1 / n_needles}
    facts = {"n_tokens": n_tokens, "n_places": n_places, "n_needles": n_needles, "split": split, "chance": chance}
    reader = SceneReader(vocabulary, name, wide=("value",), followed=("value",))
    return promptset_of_groups(reader, draw, n_items, facts, words.rejected)
