"""Gendered pronouns: he or she, by what a person is or is taken to be."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words

ROLES = ("stereotypical", "definitional")
PRONOUNS = {"male": "he", "female": "she"}
_TEMPLATE = "The {role} {verb} because"


@promptset(needs_tokenizer=True, source="Zhao et al. 2018; METHODS 11")
def gendered_pronoun(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation", roles: str = "stereotypical"
) -> Promptset:
    """'The nurse laughed because' -> she; wrong is he.

    roles: `stereotypical` are occupations, after which either pronoun may stand; `definitional` are words such as king
    and queen. Each gender is as likely, so a model that always says one pronoun has a mean logit difference of half
    its own preference against half of the opposite, 0.
    Corrupt: a role of the other gender. Labels: role, verb, end. Clusters: the role.
    Conditions: is_male. The signed difference he - she of METHODS 11 is the logit difference where is_male is 1, and
    its opposite where it is 0. Facts: roles, split.
    Raises: BadInput where the tokenizer has too few roles as single tokens or n_items exceeds what can be told.
    """
    place = "gendered_pronoun"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    roles = one_of(f"{place}.roles", roles, ROLES)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    reader, facts = PairReader(vocabulary, place), {"roles": roles, "split": split}
    return promptset_of_pairs(reader, lambda: told_pair(rng, words, roles), n_items, facts, words)


def told_pair(rng: np.random.Generator, words: TaskWords, roles: str = "definitional") -> Scene:
    """A role and one of the other gender, with the same verb."""
    gender, other = ("male", "female")[:: 1 if rng.integers(2) else -1]
    mine, theirs = (words.draw(rng, f"{roles} {each}", 1)[0] for each in (gender, other))
    (verb,) = words.draw(rng, "past verbs", 1)
    return pair(
        told(_TEMPLATE, role=mine, verb=verb),
        told(_TEMPLATE, role=theirs, verb=verb),
        (PRONOUNS[gender],),
        (PRONOUNS[other],),
        cluster=mine,
        conditions={"is_male": float(gender == "male")},
    )
