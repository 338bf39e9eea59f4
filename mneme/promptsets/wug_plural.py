"""Plurals of words that nobody has met: one wug, two wugs."""

from __future__ import annotations

import numpy as np

from mneme.arguments import whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, Told, told
from mneme.task_lexicon import TASK_LEXICON
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words
from mneme.words import SPLITS

PLURAL, STOP = "s", "."
_TEMPLATE = "Near the {place} of {name} there was one {noun}, and now there {verb} {count} {noun_again}"


@promptset(needs_tokenizer=True, source="Berko 1958; Hanna et al. 2025; METHODS 11")
def wug_plural(vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation") -> Promptset:
    """'Near the park of Mary there was one wug, and now there are two wug' -> s; 'there is one wug' -> .

    Either is as likely, and the other is wrong. The noun may be several tokens; the ending is one, glued to it.
    Corrupt: the other number. Labels: place, name, noun, verb, count, noun_again, end. Conditions: is_plural.
    Facts: split. Clusters: the noun.
    Departs from METHODS 11: one sentence where it has two, so that no full stop stands in a prompt. A tokenizer of
    whole words has no such prompts.
    Raises: BadInput where the ending is no token of its own, or n_items exceeds what can be told.
    """
    place = "wug_plural"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    reader = PairReader(vocabulary, place)
    return promptset_of_pairs(reader, lambda: told_pair(rng, words), n_items, {"split": split}, words)


def told_pair(rng: np.random.Generator, words: TaskWords) -> Scene:
    """Two and more of a thing, or one of it, and the other number."""
    nouns = made_up_nouns(words)
    noun, is_plural = nouns[int(rng.integers(len(nouns)))], bool(rng.integers(2))
    where, name, count = (words.draw(rng, kind, 1)[0] for kind in ("places", "names", "counts"))

    def tell(is_plural: bool) -> Told:
        verb, said = ("are", count) if is_plural else ("is", "one")
        return told(_TEMPLATE, place=where, name=name, noun=noun, verb=verb, count=said, noun_again=noun)

    answers = (PLURAL, STOP)[:: 1 if is_plural else -1]
    return pair(
        tell(is_plural),
        tell(not is_plural),
        answers[:1],
        answers[1:],
        cluster=noun,
        glue="",
        conditions={"is_plural": float(is_plural)},
    )


def made_up_nouns(words: TaskWords) -> tuple[str, ...]:
    """The made-up nouns of a split; they need not be single tokens."""
    nouns = TASK_LEXICON["made-up nouns"]
    return nouns if words.split == "train" else nouns[SPLITS.index(words.split) - 1 :: 2]
