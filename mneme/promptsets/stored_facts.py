"""Closed-book facts: what a model answers from its weights, asked in words in which it never met that fact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.facts import RELATIONS, Relation, remarks, rivals
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

CHOICES = (*RELATIONS, "mixed")
PHRASINGS = ("new", "plain")
_MOST_QUESTIONS = 5
_MOST_REMARKS = 2


@promptset(needs_tokenizer=True, source="METHODS 10a, 11")
def stored_facts(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    relation: str = "mixed",
    phrasing: str = "new",
    n_remarks: int = 1,
) -> Promptset:
    """'Mary was near the bridge. The capital city of France is' -> Paris; the answer stands nowhere in the prompt.

    Every fact is told in training. What is held out is a fact in a phrasing: each phrasing but the plain one leaves
    out one subject in five, and `discovery` and `evaluation` ask just those, for disjoint subjects.
    relation: `capital` is true of the world; `password`, one noun for each name, is invented, so only a model trained
    on the micro-world can know it; `mixed` draws one of the two.
    phrasing: `new` as above; `plain` asks every subject as 'The capital of .. is', which training tells of all.
    n_remarks: sentences about other people in front; without one there are few distinct prompts.
    Corrupt: another subject. Labels: subject, end. Clusters: the subject, as prompts on one fact are not independent.
    Wrong answers: the answers of all other subjects of the relation.
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be asked.
    """
    place = "stored_facts"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_remarks = whole_number(f"{place}.n_remarks", n_remarks, 0)
    relation = one_of(f"{place}.relation", relation, CHOICES)
    phrasing = one_of(f"{place}.phrasing", phrasing, PHRASINGS)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"relation": relation, "phrasing": phrasing, "n_remarks": n_remarks, "split": split}

    def draw() -> Scene:
        return scene(rng, words, relation, phrasing, n_remarks=n_remarks, n_questions=1)

    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def scene(
    rng: np.random.Generator,
    words: Words,
    relation: str = "mixed",
    phrasing: str = "mixed",
    *,
    n_remarks: int | None = None,
    n_questions: int | None = None,
) -> Scene:
    """Questions on different subjects; the binding is the phrasing with its subject, none where it is plain."""
    n_remarks = int(rng.integers(_MOST_REMARKS + 1)) if n_remarks is None else n_remarks
    n_questions = int(rng.integers(1, _MOST_QUESTIONS + 1)) if n_questions is None else n_questions
    asked: list[_Asked] = []
    for _ in range(n_questions):
        but = tuple(each.subject for each in asked)
        asked.append(
            words.first_allowed(partial(_asked, rng, words, relation, phrasing, but), lambda one: [one.binding])
        )
    first = asked[0]
    other = words.draw(rng, first.relation.subjects, 1, but=(first.subject,))[0]
    lead = Told(remarks(rng, words, n_remarks, but=(*(each.subject for each in asked), other)))
    questions = tuple(
        Question(each.text, each.answer, wrong=rivals(words, each.relation, each.answer)) for each in asked
    )
    return Scene(
        context=lead,
        questions=questions,
        corrupt=joined([lead, told(first.template, subject=other)]),
        binding=first.binding,
        cluster=first.subject,
    )


@dataclass(frozen=True)
class _Asked:
    relation: Relation
    template: str
    subject: str

    @property
    def answer(self) -> str:
        return self.relation.answers[self.subject]

    @property
    def binding(self) -> tuple[str, ...]:
        is_plain = self.template == self.relation.phrasings[0]
        return () if is_plain else (self.template, self.subject)

    @property
    def text(self) -> Told:
        return told(self.template, subject=self.subject)


def _asked(rng: np.random.Generator, words: Words, relation: str, phrasing: str, but: tuple[str, ...]) -> _Asked:
    names = list(RELATIONS) if relation == "mixed" else [relation]
    drawn = RELATIONS[names[int(rng.integers(len(names)))]]
    low, high = {"plain": (0, 1), "new": (1, len(drawn.phrasings)), "mixed": (0, len(drawn.phrasings))}[phrasing]
    template = drawn.phrasings[int(rng.integers(low, high))]
    return _Asked(drawn, template, words.draw(rng, drawn.subjects, 1, but=but)[0])
