"""Subject-verb agreement: the verb takes the number of its subject, not that of the noun in between."""

from __future__ import annotations

from functools import partial

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.lexicon import AGREEING_NOUNS, AGREEING_VERBS
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, told
from mneme.words import Words, words_for

_OF_SHAPE = {
    "simple": ("simple",),
    "phrase": ("phrase",),
    "clause": ("clause",),
    "across": ("phrase", "clause"),
    "mixed": ("simple", "phrase", "clause"),
}
SHAPES = tuple(_OF_SHAPE)
_OPENINGS = ("Today", "Now", "Then", "Later", "Here", "There", "Often", "Sometimes", "Again", "Soon")
_LINKS = ("near", "behind", "beside", "with")
_CLAUSE_VERBS = (("likes", "like"), ("knows", "know"), ("sees", "see"), ("helps", "help"))
_LEAST_VERBS = 10
_MOST_QUESTIONS = 4


@promptset(needs_tokenizer=True, source="Marvin & Linzen 2018; METHODS 11")
def agreement(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 200, split: str = "evaluation", shape: str = "across"
) -> Promptset:
    """'The teacher near the drivers' -> walks, sings, waits, ...; wrong are walk, sing, wait, ...

    shape: `simple` 'Today the teacher'; `phrase` has a prepositional phrase between noun and verb; `clause` an object
    relative clause, 'The teacher that the drivers like'; `across` draws one of these two for each prompt, `mixed` one
    of the three. In a simple sentence the last word tells the number.
    Subject and attractor are singular or plural independently, each half of the time. Correct and wrong answers are
    the same verbs in the two numbers, so that no verb is favoured. Read with `probability_difference`.
    Corrupt: the subject in the other number. Labels: subject, end, and but for `simple` and `mixed` attractor.
    Facts: shape, n_verbs, split.
    Departs from METHODS 11: 'within complement' is not among the shapes; a simple sentence begins with an adverb; from
    10 verbs on a tokenizer is accepted, and the facts say how many it has.
    Raises: BadInput where the tokenizer has fewer verbs or too few nouns as single tokens, or n_items exceeds what can
    be told.
    """
    place = "agreement"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    shape = one_of(f"{place}.shape", shape, SHAPES)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    n_verbs = len(_verbs(words)[0])
    if n_verbs < _LEAST_VERBS:
        raise BadInput(
            f"{place}: the tokenizer has {n_verbs} verbs as single tokens in both numbers, and {_LEAST_VERBS} are "
            "needed: use a promptset that fits this model"
        )
    facts = {"shape": shape, "n_verbs": n_verbs, "split": split}
    return promptset_of_scenes(
        SceneReader(vocabulary, place), lambda: scene(rng, words, shape, n_questions=1), n_items, facts, words.rejected
    )


def scene(rng: np.random.Generator, words: Words, shape: str = "mixed", n_questions: int | None = None) -> Scene:
    """Sentences on different people; the binding is the whole combination of forms in the first."""
    n_questions = int(rng.integers(1, _MOST_QUESTIONS + 1)) if n_questions is None else n_questions
    drawn: list[_Sentence] = []
    for _ in range(n_questions):
        but = tuple(noun for each in drawn for noun in each.nouns)
        drawn.append(words.first_allowed(partial(_Sentence, rng, words, shape, but), lambda each: [each.forms]))
    first = drawn[0]
    return Scene(
        context=Told(""),
        questions=tuple(_asked(rng, words, each) for each in drawn),
        corrupt=first.text(not first.is_plural),
        binding=first.forms,
        cluster=first.cluster,
    )


class _Sentence:
    """A subject and what stands between it and its verb."""

    def __init__(self, rng: np.random.Generator, words: Words, shape: str, but: tuple[str, ...]) -> None:
        self.shape = _OF_SHAPE[shape][int(rng.integers(len(_OF_SHAPE[shape])))]
        self.nouns = words.draw(rng, "singular_nouns", 1 if self.shape == "simple" else 2, but=but)
        self.is_plural, self.other_is_plural = (bool(each) for each in rng.integers(2, size=2))
        choices = {"simple": _OPENINGS, "phrase": _LINKS, "clause": _CLAUSE_VERBS}[self.shape]
        self.link = choices[int(rng.integers(len(choices)))]

    @property
    def forms(self) -> tuple[str, ...]:
        """The words that make this sentence what it is."""
        text = self.text(self.is_plural).text
        return tuple(text.split())

    @property
    def cluster(self) -> str:
        numbers = f"{self.is_plural}" if self.shape == "simple" else f"{self.is_plural}.{self.other_is_plural}"
        return f"{self.shape}.{self.link}.{numbers}"

    def text(self, is_plural: bool) -> Told:
        """The sentence up to its verb, with the subject in one number."""
        subject = _form(self.nouns[0], is_plural)
        if self.shape == "simple":
            return told(f"{self.link} the {{subject}}", subject=subject)
        attractor = _form(self.nouns[1], self.other_is_plural)
        if self.shape == "phrase":
            return told(f"The {{subject}} {self.link} the {{attractor}}", subject=subject, attractor=attractor)
        verb = self.link[self.other_is_plural]
        return told(f"The {{subject}} that the {{attractor}} {verb}", subject=subject, attractor=attractor)


def _form(noun: str, is_plural: bool) -> str:
    return AGREEING_NOUNS[noun] if is_plural else noun


def _asked(rng: np.random.Generator, words: Words, sentence: _Sentence) -> Question:
    """All verbs in both numbers; the one that is said is any agreeing one."""
    singular, plural = _verbs(words)
    agreeing, others = (plural, singular) if sentence.is_plural else (singular, plural)
    said = agreeing[int(rng.integers(len(agreeing)))]
    return Question(sentence.text(sentence.is_plural), said, wrong=others, correct=agreeing)


def _verbs(words: Words) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The verbs that are single tokens in both numbers: singular, plural."""
    plurals = set(words.known("plural_verbs"))
    singular = tuple(verb for verb in words.known("singular_verbs") if AGREEING_VERBS[verb] in plurals)
    return singular, tuple(AGREEING_VERBS[verb] for verb in singular)
