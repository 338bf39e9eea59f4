"""One fact that the context contradicts, in several wordings: what it says against what the weights hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.facts import RELATIONS, Relation, remarks
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

CHOICES = (*RELATIONS, "mixed")
WORDINGS = ("plain", "paraphrased", "mixed")
CORRUPTED = ("both", "context", "subject")


@promptset(needs_tokenizer=True, source="Yu et al. 2023; Jin et al. 2024; METHODS 10a, 10b")
def fact_conflict(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    relation: str = "capital",
    wording: str = "mixed",
    corrupted: str = "both",
    n_remarks: int = 1,
) -> Promptset:
    """'The capital of France is Rome. Mary was near the bridge. The capital of France is' -> Rome, or Paris by heart.

    The correct answer is the context's, the wrong one the memorised one. The statement and the question are worded
    alike; nothing says whether the statement is a story.
    relation: `capital` is true of the world; `password`, one noun for each name, is known to models of the micro-world
    alone; `mixed` draws one of the two. wording: `plain` says 'The capital of .. is'; `paraphrased` says it in four
    other ways; `mixed` in all five.
    corrupted: the sources that the corrupt prompt replaces, every mention by one word: `context`, the answer in the
    statement, by the answer of a third subject; `subject`, what is asked for, by another subject, in the statement too;
    `both`, so that neither answer can be found.
    Labels: subject, context_answer, question_subject, question_first, question, end. Conditions: `wording`, the number
    of the wording, 0 = plain, and `relation`, 0 = capital. Clusters: the subject.
    Departs from METHODS 10a: no 'Q: .. A:'; the pairs of a subject and an answer are those that training holds out;
    the promptset knows no model: which of the facts a model knows is found by the probes that need it
    (`closed_book`).
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "fact_conflict"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_remarks = whole_number(f"{place}.n_remarks", n_remarks, 0)
    relation = one_of(f"{place}.relation", relation, CHOICES)
    wording = one_of(f"{place}.wording", wording, WORDINGS)
    corrupted = one_of(f"{place}.corrupted", corrupted, CORRUPTED)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {
        "relation": relation,
        "wording": wording,
        "corrupted": corrupted,
        "n_remarks": n_remarks,
        "split": split,
    }

    def draw() -> Scene:
        return _scene(_drawn(rng, words, relation, wording, n_remarks), corrupted)

    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


@dataclass(frozen=True)
class _Conflict:
    """A relation and one of its wordings; the subject asked for and two others; whose answer the context gives."""

    relation: Relation
    wording: int
    subject: str
    told_of: str
    other: str
    third: str
    between: str

    @property
    def binding(self) -> tuple[str, str]:
        return self.subject, self.relation.answers[self.told_of]

    def context(self, subject: str, answer: str) -> Told:
        statement = told(f"{self.phrasing} {{context_answer}}.", subject=subject, context_answer=answer)
        return joined([statement, Told(self.between)])

    def question(self, subject: str) -> Told:
        return told(self.phrasing.replace("{subject}", "{question_subject}"), question_subject=subject)

    @property
    def phrasing(self) -> str:
        return self.relation.phrasings[self.wording]


def _drawn(rng: np.random.Generator, words: Words, relation: str, wording: str, n_remarks: int) -> _Conflict:
    names = list(RELATIONS) if relation == "mixed" else [relation]
    chosen = RELATIONS[names[int(rng.integers(len(names)))]]
    low, high = {"plain": (0, 1), "paraphrased": (1, None), "mixed": (0, None)}[wording]

    def draw() -> _Conflict:
        number = int(rng.integers(low, high or len(chosen.phrasings)))
        subject, told_of, other, third = words.draw(rng, chosen.subjects, 4)
        between = remarks(rng, words, n_remarks, but=(subject, told_of, other, third))
        return _Conflict(chosen, number, subject, told_of, other, third, between)

    return words.first_allowed(draw, lambda one: [one.binding])


def _scene(conflict: _Conflict, corrupted: str) -> Scene:
    answers = conflict.relation.answers
    said = answers[conflict.told_of]
    question = Question(conflict.question(conflict.subject), said, wrong=(answers[conflict.subject],))
    subject = conflict.subject if corrupted == "context" else conflict.other
    answer = said if corrupted == "subject" else answers[conflict.third]
    return Scene(
        context=conflict.context(conflict.subject, said),
        questions=(question,),
        corrupt=joined([conflict.context(subject, answer), conflict.question(subject)]),
        binding=conflict.binding,
        cluster=conflict.subject,
        conditions={"wording": conflict.wording, "relation": list(RELATIONS.values()).index(conflict.relation)},
    )
