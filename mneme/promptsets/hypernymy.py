"""Hypernymy: what kind of thing something is."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words

FRAMES = ("plural", "singular", "mixed")
_TEMPLATES = {"plural": "{opening} the {exemplar} and other", "singular": "{opening} the {exemplar}, which is a"}
_OPENINGS = ("We talked about", "They wrote about", "She read about", "He asked about", "I thought about")
_LEAST_CATEGORIES = 8


@promptset(needs_tokenizer=True, source="Battig & Montague 1969; METHODS 11")
def hypernymy(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation", frame: str = "mixed"
) -> Promptset:
    """'We talked about the hammers and other' -> tools, tool; 'We talked about the hammer, which is a' -> the same.

    frame: `plural` and `singular` as above; `mixed` draws one of the two. Right are the category in both numbers,
    wrong all other categories in both. Read with `probability_difference` and `set_accuracy`.
    Corrupt: an exemplar of another category. Labels: exemplar, end. Clusters: the exemplar.
    Facts: frame, n_categories, split.
    Departs from METHODS 11: an opening stands in front, and the exemplar has an article, so that prompts are many.
    Raises: BadInput where fewer than eight categories have both numbers as single tokens, a category has no two
    exemplars that are, or n_items exceeds what can be told.
    """
    place = "hypernymy"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    frame = one_of(f"{place}.frame", frame, FRAMES)
    words = task_words(vocabulary, place, split)
    categories = usable_categories(words)
    if len(categories) < _LEAST_CATEGORIES:
        raise BadInput(
            f"{place}: the tokenizer has {len(categories)} categories with exemplars as single tokens, and "
            f"{_LEAST_CATEGORIES} are needed: use a promptset that fits this model"
        )
    rng = np.random.default_rng(seed)
    facts = {"frame": frame, "n_categories": len(categories), "split": split}
    return promptset_of_pairs(
        PairReader(vocabulary, place), lambda: told_pair(rng, words, frame, categories), n_items, facts, words
    )


def usable_categories(words: TaskWords) -> tuple[str, ...]:
    """The categories that have single tokens for themselves and for four exemplars, so that each split has two."""
    return tuple(each for each in words.known("categories") if len(words.known(each)) >= 4)


def told_pair(
    rng: np.random.Generator, words: TaskWords, frame: str = "mixed", categories: tuple[str, ...] = ()
) -> Scene:
    """An exemplar and one of another category, in the same frame."""
    categories = categories or usable_categories(words)
    frame = FRAMES[int(rng.integers(2))] if frame == "mixed" else frame
    opening = _OPENINGS[int(rng.integers(len(_OPENINGS)))]
    mine, other = (categories[each] for each in rng.choice(len(categories), size=2, replace=False))
    said = [words.draw(rng, each, 1)[0].split("/")[frame == "plural"] for each in (mine, other)]
    clean, corrupt = (told(_TEMPLATES[frame].replace("{opening}", opening), exemplar=each) for each in said)
    wrong = tuple(form for each in categories if each != mine for form in each.split("/"))
    return pair(clean, corrupt, tuple(mine.split("/")), wrong, cluster=said[0])
