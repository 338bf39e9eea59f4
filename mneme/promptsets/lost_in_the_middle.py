"""A list of pairs whose asked pair stands first, in the middle or last: the same items at every place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.pair_lists import PairList, asks, drawn_pairs
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_groups import promptset_of_groups
from mneme.scene_prompts import SceneReader
from mneme.stories import Scene, Told
from mneme.words import words_for

CONTEXTS = ("all", "gold", "none")
_FEWEST_PLACES = 5


@promptset(needs_tokenizer=True, source="Liu et al. 2023 (Lost in the middle); METHODS 15")
def lost_in_the_middle(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 60,
    n_pairs: int = 19,
    n_places: int = 7,
    context: str = "all",
) -> Promptset:
    """'Pairs: river alpha stone beta ... Again: stone' -> beta, the asked pair at each of several places.

    n_items: lists; each is told with its asked pair at every place, the other pairs in the same order, so that places
    are compared on the same items. A list is a cluster.
    n_places: places from the first to the last pair at equal distances, the middle one among them if the number is odd.
    context: `gold` tells the asked pair alone and `none` nothing, one prompt per list: what a model reaches without
    distractors, and without reading. The items are those of `all`.
    The corrupt prompt has every value at the next key; there is none where fewer than two pairs are told.
    Labels: key, value, value_next (the token after it; not these where nothing is told), question_key, question_first,
    question, end.
    Condition: place, of the asked pair from 0; none for `gold` and `none`. Facts: n_pairs, n_places, context. Wrong
    answers: the values of all other keys, so chance is 1 / n_pairs.
    Departs from Liu et al.: words in place of random identifiers, which share no prefix by chance since each is one
    token, and the answer is compared with the other values by its logit. The words are those of both held-out splits.
    Raises: BadInput for more places than pairs, fewer than five, or where the tokenizer has too few single-token words.
    """
    name = "lost_in_the_middle"
    n_items = whole_number(f"{name}.n_items", n_items, 1)
    n_pairs = whole_number(f"{name}.n_pairs", n_pairs, _FEWEST_PLACES)
    n_places = whole_number(f"{name}.n_places", n_places, _FEWEST_PLACES)
    one_of(f"{name}.context", context, CONTEXTS)
    if n_places > n_pairs:
        raise BadInput(f"{name}.n_places is {n_places} and there are {n_pairs} pairs: ask for fewer places")
    places = np.linspace(0, n_pairs - 1, n_places).round().astype(int).tolist()
    words = words_for(vocabulary, name, "evaluation")
    rng = np.random.default_rng(seed)

    def draw() -> list[Scene]:
        pairs = drawn_pairs(rng, words, n_pairs, 0)
        return [_scene(pairs, place, context) for place in (places if context == "all" else places[:1])]

    facts = {"n_pairs": n_pairs, "n_places": n_places, "context": context}
    reader = SceneReader(vocabulary, name, followed=("value",))
    return promptset_of_groups(reader, draw, n_items, facts, words.rejected)


def _scene(pairs: PairList, place: int, context: str) -> Scene:
    """The list with its first pair moved to a place."""
    others = list(range(1, len(pairs.keys)))
    placed = pairs.arranged([*others[:place], 0, *others[place:]])
    if context == "all":
        return replace(placed.answered(asks(pairs.key)), conditions={"place": float(place)})
    alone = placed.answered(asks(pairs.key), said=pairs.arranged([0]))
    return alone if context == "gold" else replace(alone, context=Told("Again:"))
