"""Facts that the context contradicts: what it says against what the weights hold."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.facts import RELATIONS, remarks
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

CUES = ("cued", "uncued")
_CUES_SAID = ("In this story,", "In this song,", "In this game,")
_CAPITAL = RELATIONS["capital"]
_SAID = "the capital of {subject} is {context_answer}."
_MOST_STATED = 4
_MOST_REMARKS = 2


@promptset(needs_tokenizer=True, source="Yu et al. 2023; METHODS 10a, 11")
def counterfactual_facts(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    cue: str = "cued",
    n_stated: int = 3,
    n_remarks: int = 1,
) -> Promptset:
    """'In this story, the capital of France is Rome. Mary was near the bridge. The capital of France is' -> Rome.

    cue: `cued` says that this holds in a story, `uncued` states it as a fact. Training documents are cued and follow
    the context. Uncued ones never occur there, so what a model says is its own choice; the correct answer is the
    context's all the same, and the memorised one is among the wrong ones.
    n_stated: 1 is METHODS 10a: one country, with the capital of a country that is not named; the memorised answer is
    the one wrong answer, and copying the only city is enough. From 2 on the countries exchange their capitals in a
    ring: every wrong answer, the memorised one too, stands in the prompt once like the correct one, and only the
    country leads to it.
    Corrupt: the context gives the asked country its true capital, one word is changed, and the context's answer
    stands nowhere. Labels: subject and context_answer (the statement asked for), question_subject, end.
    Wrong answers: the true capitals of the stated countries but the correct one; the memorised one first.
    Departs from METHODS 10a: no 'Q: .. A:', the statement's own words ask; the countries are not first checked to be
    known to the model (`stored_facts` measures that).
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "counterfactual_facts"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_stated = whole_number(f"{place}.n_stated", n_stated, 1)
    n_remarks = whole_number(f"{place}.n_remarks", n_remarks, 0)
    cue = one_of(f"{place}.cue", cue, CUES)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"cue": cue, "n_stated": n_stated, "n_remarks": n_remarks, "split": split}

    def draw() -> Scene:
        return scene(rng, words, cue, n_stated=n_stated, n_remarks=n_remarks, n_questions=1)

    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def scene(
    rng: np.random.Generator,
    words: Words,
    cue: str = "cued",
    *,
    n_stated: int | None = None,
    n_remarks: int | None = None,
    n_questions: int | None = None,
) -> Scene:
    """Statements and questions on some of them; the binding is the country asked first with its city in the story."""
    n_stated = int(rng.integers(1, _MOST_STATED + 1)) if n_stated is None else n_stated
    n_remarks = int(rng.integers(_MOST_REMARKS + 1)) if n_remarks is None else n_remarks
    n_questions = int(rng.integers(1, n_stated + 1)) if n_questions is None else n_questions
    is_training = words.split == "train"
    said = words.first_allowed(
        lambda: _exchanged(rng, words, n_stated), lambda pairs: list(pairs.items()) if is_training else [_first(pairs)]
    )
    country, city = _first(said)
    order = [list(said)[each] for each in rng.permutation(n_stated)]
    opening = _CUES_SAID[int(rng.integers(len(_CUES_SAID)))] if cue == "cued" else ""
    between = Told(remarks(rng, words, n_remarks))

    def context(answer: str) -> Told:
        asked = told(_SAID, subject=country, context_answer=answer)
        stated = [asked if each == country else _plain(each, said[each]) for each in order]
        if opening:
            return joined([Told(opening), stated[0], *map(_capitalised, stated[1:]), between])
        return joined([*map(_capitalised, stated), between])

    questions = [_question(said, country, "question_subject")]
    questions += [_question(said, each, "subject") for each in list(said)[1:n_questions]]
    return Scene(
        context=context(city),
        questions=tuple(questions),
        corrupt=joined([context(_CAPITAL.answers[country]), questions[0].text]),
        binding=(country, city),
    )


def _exchanged(rng: np.random.Generator, words: Words, n: int) -> dict[str, str]:
    """What the story says, country -> city: each country has the capital of the next, the last that of the first."""
    ring = words.draw(rng, _CAPITAL.subjects, max(2, n))
    return {country: _CAPITAL.answers[ring[(place + 1) % len(ring)]] for place, country in enumerate(ring[:n])}


def _first(pairs: dict[str, str]) -> tuple[str, str]:
    return next(iter(pairs.items()))


def _question(said: dict[str, str], country: str, slot: str) -> Question:
    """The plain question; wrong are the true capitals of the stated countries, the memorised one first."""
    memorised, city = _CAPITAL.answers[country], said[country]
    others = [each for each in map(_CAPITAL.answers.__getitem__, said) if each not in (memorised, city)]
    text = told(_CAPITAL.phrasings[0].replace("{subject}", f"{{{slot}}}"), **{slot: country})
    return Question(text, city, wrong=(memorised, *others))


def _plain(country: str, city: str) -> Told:
    return Told(_SAID.format(subject=country, context_answer=city))


def _capitalised(sentence: Told) -> Told:
    return Told(sentence.text[0].upper() + sentence.text[1:], sentence.spans)
