"""A concept to read off a model: whether a statement of a fact is true."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.facts import RELATIONS, Relation, remarks
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Scene, Told, joined, told
from mneme.words import Words, words_for


@promptset(needs_tokenizer=True, source="Jin et al. 2024; METHODS 17, 10a")
def true_facts(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 400, relation: str = "capital", n_remarks: int = 1
) -> Promptset:
    """'Mary was near the bridge. The capital city of France is Paris.', or Berlin: true in every other prompt.

    Subjects are put together by twos, at random; what is false of one is true of the other. So each subject and each
    object stands in as many true as false statements, and no word of a fact is on both sides of a fold.
    relation: `capital` is true of the world; `password`, one noun for each name, is invented, so only a model trained
    on the micro-world can know it. Statements are in all phrasings of `stored_facts`, of all subjects.
    n_remarks: sentences about other people in front; without one there are few distinct prompts.
    Conditions: concept, 1 where it is true; concept_key, the number of the subject. Clusters: the two subjects.
    Labels: subject, object, end (the full stop). No answers.
    Departs from METHODS 17: entities are kept apart, phrasings, of which there are five, are not.
    Raises: BadInput where the tokenizer has fewer than four subjects and objects as single tokens.
    """
    place = "true_facts"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_remarks = whole_number(f"{place}.n_remarks", n_remarks, 0)
    facts_of = RELATIONS[one_of(f"{place}.relation", relation, tuple(RELATIONS))]
    words = words_for(vocabulary, place, "train")
    rng = np.random.default_rng(seed)
    twos = _twos(rng, words, facts_of, place)
    is_true = cycle((True, False))

    def draw() -> Scene:
        pair = int(rng.integers(len(twos)))
        at = int(rng.integers(2))
        truth = next(is_true)
        statement = _statement(rng, facts_of, twos[pair], at, truth)
        front = Told(remarks(rng, words, n_remarks, but=twos[pair]))
        concept = {"concept": float(truth), "concept_key": float(2 * pair + at)}
        return Scene(joined([front, statement]), questions=(), cluster=f"facts {pair}", conditions=concept)

    facts = {"relation": relation, "n_remarks": n_remarks}
    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def _twos(rng: np.random.Generator, words: Words, facts_of: Relation, place: str) -> list[tuple[str, str]]:
    """Subjects by twos, of those that are single tokens and whose objects are; an odd one is left out."""
    objects = set(words.known(facts_of.objects))
    subjects = [each for each in words.known(facts_of.subjects) if facts_of.answers.get(each) in objects]
    if len(subjects) < 4:
        raise BadInput(
            f"{place}: the tokenizer has {len(subjects)} {facts_of.subjects} as single tokens with their "
            f"{facts_of.objects}: use a promptset that fits this model"
        )
    mixed = [subjects[each] for each in rng.permutation(len(subjects))]
    return list(zip(mixed[::2], mixed[1::2], strict=False))


def _statement(rng: np.random.Generator, facts_of: Relation, two: tuple[str, str], at: int, is_true: bool) -> Told:
    template = facts_of.phrasings[int(rng.integers(len(facts_of.phrasings)))]
    answer = facts_of.answers[two[at if is_true else 1 - at]]
    return told(f"{template} {{object}}.", subject=two[at], object=answer)
