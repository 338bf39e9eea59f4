"""Lists of nouns read again: lists of one category and of any nouns, and what stands before and between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, product

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.encoding import encode, tokenizer_of
from mneme.errors import BadInput
from mneme.filler import filler
from mneme.lexicon import CAPITALS, CATEGORIES
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.verbatim_list import CONDITIONS
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Scene, Told, joined, told
from mneme.words import Words, words_for

KINDS = ("arbitrary", "semantic", "mixed")
SCENARIOS = ("intact", "scrambled", "incongruent", "short", "other_preface")
FIRST_LISTS = ("told", "absent", "filler")
_PREFACES = (
    "{name} wrote down this list of words:",
    "Here is the list that {name} wrote:",
    "{name} chose this list of words:",
    "Remember this list of words that {name} read:",
)
_CATEGORIES = tuple(f"{each}s" for each in CATEGORIES)
_TOLD_BETWEEN = "animals"  # the one category of which the text between tells too: a list leaves a word of it
_LEAST_OF_CATEGORY = 2
_FRAME = 20  # words and marks around the lists and the text between, with the first token
_LEAST_BETWEEN = 20  # room for two sentences, so that a short text differs from a long one
_MOST_DRAWS = 1000
_WORD = re.compile(r"\w+")


@promptset(needs_tokenizer=True, source="Armeni, Honey, Linzen 2022; METHODS 9")
def noun_list_scenarios(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    condition: str = "repeat",
    kinds: Sequence[str] = KINDS,
    scenarios: Sequence[str] = SCENARIOS,
    first_list: str = "told",
    n_lists: int = 4,
    n_nouns: int = 4,
    n_between: int = 47,
    split: str = "evaluation",
) -> Promptset:
    """'Mary wrote down this list of words: dog, cow, .. . <text> Then Mary read the list again: dog, cow, .. .', whole.

    condition: list 2 is list 1 (`repeat`), its nouns in another order (`permute`), or the next list 1 (`novel`), which
    shares no noun with it. Over all prompts list 2 has the same nouns equally often in each condition, so that their
    unigram surprisal is matched exactly; texts and names are the same in all three.
    kinds: `arbitrary`, any nouns; `semantic`, nouns of one category; `mixed`, nouns of the same categories, no two of
    one, which are the words of `semantic` without what they have in common.
    scenarios: `intact`, plain sentences between the lists; `scrambled`, their words in another order, punctuation
    where it was; `incongruent`, a text about something else (capitals); `short`, the first of the sentences only;
    `other_preface`, list 1 announced in other words.
    first_list: `told`; `absent`, the preface without a list; `filler`, as many words of a sentence in its place.
    n_lists: lists of each kind, each in all its circular shifts; every kind is told in every scenario.
    Conditions: kind, scenario (their numbers in the lists above: 0, 1, ...) and list. Clusters: the lists.
    Labels: list2_0 .., end, and where list 1 is told list1_0 .. . Facts: condition, kinds, scenarios, first_list,
    n_nouns, n_between, n_lists, split.
    Departs from METHODS 9: categories have few words, so n_nouns is smaller than there; texts are made of word lists.
    Raises: BadInput for an unknown or doubled kind or scenario, fewer than two lists or three nouns, a text between
    that is too short or that the context has no room for, or where the tokenizer has too few single-token words.
    """
    place = "noun_list_scenarios"
    condition = one_of(f"{place}.condition", condition, CONDITIONS)
    first_list = one_of(f"{place}.first_list", first_list, FIRST_LISTS)
    chosen_kinds, chosen_scenarios = _chosen("kinds", kinds, KINDS), _chosen("scenarios", scenarios, SCENARIOS)
    n_lists, n_nouns = whole_number(f"{place}.n_lists", n_lists, 2), whole_number(f"{place}.n_nouns", n_nouns, 3)
    longest = vocabulary.context - _FRAME - 4 * n_nouns
    n_between = whole_number(f"{place}.n_between", n_between, _LEAST_BETWEEN, longest)
    words = words_for(vocabulary, place, split)
    cells = [
        _Cell(kind, scenario, number, shift, lists)
        for kind in chosen_kinds
        for lists in [_base_lists(np.random.default_rng([seed, KINDS.index(kind)]), words, kind, n_nouns, n_lists)]
        for scenario, number, shift in product(chosen_scenarios, range(n_lists), range(n_nouns))
    ]
    tokenizer = tokenizer_of(vocabulary, place)
    teller = _Teller(words, condition, first_list, n_between, lambda text: len(encode(tokenizer, f" {text}")))
    scenes = cycle([teller.scene(np.random.default_rng([seed, *each.seed]), each) for each in cells])
    facts = {
        "condition": condition,
        "kinds": chosen_kinds,
        "scenarios": chosen_scenarios,
        "first_list": first_list,
        "n_nouns": n_nouns,
        "n_between": n_between,
        "n_lists": n_lists,
        "split": split,
    }
    reader = SceneReader(vocabulary, place)
    return promptset_of_scenes(reader, lambda: next(scenes), len(cells), facts, words.rejected)


@dataclass(frozen=True)
class _Cell:
    """Which list is told in which scenario, beginning with which of its nouns."""

    kind: str
    scenario: str
    number: int
    shift: int
    lists: list[list[str]]

    @property
    def seed(self) -> tuple[int, int, int]:
        """Of names, texts and orders: the same in every scenario and condition."""
        return KINDS.index(self.kind), self.number, self.shift

    def shifted(self, number: int) -> list[str]:
        """A list from the noun on with which this one begins, around its end."""
        nouns = self.lists[number % len(self.lists)]
        return nouns[self.shift :] + nouns[: self.shift]

    @property
    def conditions(self) -> dict[str, float]:
        return {"kind": KINDS.index(self.kind), "scenario": SCENARIOS.index(self.scenario), "list": self.number}


@dataclass(frozen=True)
class _Teller:
    """Tells a cell; `count` says how many tokens a sentence has."""

    words: Words
    condition: str
    first_list: str
    n_between: int
    count: Callable[[str], int]

    def scene(self, rng: np.random.Generator, cell: _Cell) -> Scene:
        first, following = cell.shifted(cell.number), cell.shifted(cell.number + 1)
        name = self.words.draw(rng, "names", 1)[0]
        order = _other_order(rng, len(first))
        second = {"repeat": first, "permute": [first[each] for each in order], "novel": following}[self.condition]
        absent = {*first, *following, name}
        between, instead = self._between(rng, cell.scenario, absent), self._no_list(rng, len(first), absent)
        preface = _PREFACES[0]
        if cell.scenario == "other_preface":
            preface = _PREFACES[1 + int(rng.integers(len(_PREFACES) - 1))]
        preface = preface.format(name=name)
        if self.first_list == "told":
            parts = [Told(preface), _listed(first, "list1"), Told(".")]
        else:
            parts = [Told(f"{preface} {instead}." if self.first_list == "filler" else f"{preface[:-1]}.")]
        parts += [Told(between), Told(f"Then {name} read the list again:"), _listed(second, "list2"), Told(".")]
        cluster = f"{cell.kind} {cell.number}"
        return Scene(joined(parts), questions=(), cluster=cluster, conditions=cell.conditions)

    def _between(self, rng: np.random.Generator, scenario: str, absent: set[str]) -> str:
        """The text between; every scenario draws the plain sentences first, so that they are the same in all."""
        sentences: list[str] = []
        while not sentences:
            sentences = filler(rng, self.words, self.n_between, absent, self.count)
        if scenario == "short":
            return sentences[0]
        if scenario == "incongruent":
            return self._about_capitals(rng)
        text = " ".join(sentences)
        return _scrambled(rng, text) if scenario == "scrambled" else text

    def _about_capitals(self, rng: np.random.Generator) -> str:
        """True sentences about capitals, again from the first when all are told."""
        known = set(self.words.known("capitals"))
        countries = [each for each in self.words.of("countries") if CAPITALS[each] in known]
        if not countries:
            raise BadInput("noun_list_scenarios: the tokenizer has no capital as a single token: leave out incongruent")
        order = cycle(rng.permutation(len(countries)).tolist())
        text = ""
        while True:
            country = countries[next(order)]
            longer = f"{text} The capital of {country} is {CAPITALS[country]}.".strip()
            if self.count(longer) > self.n_between:
                return text
            text = longer

    def _no_list(self, rng: np.random.Generator, n_nouns: int, absent: set[str]) -> str:
        """As many words as a list of nouns and its commas have tokens."""
        size = 2 * n_nouns - 1
        found: list[str] = []
        while len(found) < size:
            found += _WORD.findall(" ".join(filler(rng, self.words, self.n_between, absent)))
        return " ".join(found[:size])


def _chosen(name: str, given: object, known: Sequence[str]) -> list[str]:
    if not isinstance(given, list | tuple) or not given:
        raise BadInput(f"noun_list_scenarios.{name} is {given!r}: give a list such as [{known[0]}]")
    chosen = [one_of(f"noun_list_scenarios.{name}", each, known) for each in given]
    if len(set(chosen)) < len(chosen):
        raise BadInput(f"noun_list_scenarios.{name} is {given!r}: name each once")
    return chosen


def _base_lists(rng: np.random.Generator, words: Words, kind: str, n_nouns: int, n_lists: int) -> list[list[str]]:
    """Lists of a kind, none twice, neighbours without a common noun; the first is the neighbour of the last."""
    found: list[list[str]] = []
    for _ in range(_MOST_DRAWS):
        drawn = _drawn(rng, words, kind, n_nouns)
        neighbours = [*found[-1:], *(found[:1] if len(found) == n_lists - 1 else [])]
        is_new = all(set(drawn) != set(each) for each in found)
        if is_new and not any(set(drawn) & set(each) for each in neighbours):
            found.append(drawn)
        if len(found) == n_lists:
            return found
    raise BadInput(
        f"noun_list_scenarios: {n_lists} {kind} lists of {n_nouns} nouns are asked for and the tokenizer's words give "
        f"{len(found)}: lower n_lists or n_nouns"
    )


def _drawn(rng: np.random.Generator, words: Words, kind: str, n_nouns: int) -> list[str]:
    if kind == "arbitrary":
        return words.first_allowed(lambda: words.draw(rng, "nouns", n_nouns), lambda each: [each])
    wanted = n_nouns if kind == "semantic" else _LEAST_OF_CATEGORY
    usable = [each for each in _CATEGORIES if len(words.of(each)) >= wanted + (each == _TOLD_BETWEEN)]
    n_drawn = 1 if kind == "semantic" else n_nouns
    if len(usable) < n_drawn:
        raise BadInput(
            f"noun_list_scenarios: {kind} lists of {n_nouns} nouns need {n_drawn} categories and the "
            f"{words.split} split has {len(usable)} that are large enough: lower n_nouns or leave out {kind}"
        )
    categories = [usable[each] for each in rng.permutation(len(usable))[:n_drawn]]
    if kind == "semantic":
        return words.draw(rng, categories[0], n_nouns)
    return [words.draw(rng, each, 1)[0] for each in categories]


def _other_order(rng: np.random.Generator, n: int) -> list[int]:
    """An order of n places that is not the one they have."""
    while True:
        order: list[int] = rng.permutation(n).tolist()
        if order != sorted(order):
            return order


def _scrambled(rng: np.random.Generator, text: str) -> str:
    """The words of a text in another order, in the places of words."""
    found = _WORD.findall(text)
    dealt = iter([found[each] for each in _other_order(rng, len(found))])
    return _WORD.sub(lambda _: next(dealt), text)


def _listed(nouns: Sequence[str], name: str) -> Told:
    slots = [f"{name}_{each}" for each in range(len(nouns))]
    return told(", ".join(f"{{{slot}}}" for slot in slots), **dict(zip(slots, nouns, strict=True)))
