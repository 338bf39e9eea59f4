"""Lists of several kinds in several scenarios: what is equal between conditions, and what alone differs."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from mneme.encoding import encode
from mneme.errors import BadInput
from mneme.lexicon import CATEGORIES, LEXICON
from mneme.list_surprisal import noun_places
from mneme.promptset import Promptset
from mneme.promptsets.noun_list_scenarios import KINDS, SCENARIOS, noun_list_scenarios
from mneme.words import is_held_out
from tests.scene_vocabularies import word_vocabulary

WORDS = word_vocabulary("verbatim_list")
FORM = re.compile(r"(.*?): ([\w, ]+)\.(.*) Then (\w+) read the list again: ([\w, ]+)\.")
CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}


@pytest.fixture(scope="module")
def told() -> dict[str, Promptset]:
    return {name: noun_list_scenarios(WORDS, seed=0, condition=name) for name in ("repeat", "permute", "novel")}


def parts(text: str) -> tuple[str, list[str], str, list[str]]:
    """Preface, list 1, the text between, list 2."""
    preface, first, between, _, second = FORM.fullmatch(text).groups()
    return preface, first.split(", "), between.strip(), second.split(", ")


def of_cell(prompts: Promptset, kind: str, scenario: str) -> list[str]:
    here = (prompts.conditions["kind"] == KINDS.index(kind)) & (
        prompts.conditions["scenario"] == SCENARIOS.index(scenario)
    )
    return [prompts.texts[each] for each in torch.nonzero(here)[:, 0].tolist()]


def n_tokens(text: str) -> int:
    return len(encode(WORDS.tokenizer, f" {text}"))


def test_every_kind_is_told_in_every_scenario_in_all_shifts(told: dict[str, Promptset]) -> None:
    prompts = told["repeat"]
    assert len(prompts) == len(KINDS) * len(SCENARIOS) * 4 * 4
    assert len(set(prompts.clusters.tolist())) == len(KINDS) * 4
    for kind in KINDS:
        for scenario in SCENARIOS:
            texts = of_cell(prompts, kind, scenario)
            assert len(texts) == 4 * 4
            firsts = [parts(text)[1] for text in texts]
            assert all(parts(text)[3] == first for text, first in zip(texts, firsts, strict=True))
            assert Counter(first[0] for first in firsts) == Counter(noun for first in firsts[::4] for noun in first)


def test_lists_are_of_one_category_or_of_several_or_of_any_nouns(told: dict[str, Promptset]) -> None:
    for text in of_cell(told["repeat"], "semantic", "intact"):
        assert len({CATEGORY_OF[noun] for noun in parts(text)[1]}) == 1
    for text in of_cell(told["repeat"], "mixed", "intact"):
        assert len({CATEGORY_OF[noun] for noun in parts(text)[1]}) == 4
    for text in of_cell(told["repeat"], "arbitrary", "intact"):
        assert set(parts(text)[1]) <= set(LEXICON["nouns"])
        assert is_held_out(parts(text)[1])


def test_the_second_list_has_the_same_nouns_equally_often_in_every_condition(told: dict[str, Promptset]) -> None:
    """So the unigram surprisal of list 2, whatever the corpus, is the same in all conditions."""
    for kind in KINDS:
        counts = [
            Counter(noun for text in of_cell(prompts, kind, "intact") for noun in parts(text)[3])
            for prompts in told.values()
        ]
        assert counts[0] == counts[1] == counts[2]


def test_conditions_differ_in_the_second_list_alone(told: dict[str, Promptset]) -> None:
    texts = zip(*(prompts.texts for prompts in told.values()), strict=True)
    for repeat, permute, novel in texts:
        whole = [parts(each) for each in (repeat, permute, novel)]
        assert whole[0][:3] == whole[1][:3] == whole[2][:3]
        first = whole[0][1]
        assert sorted(whole[1][3]) == sorted(first)
        assert whole[1][3] != first
        assert not set(whole[2][3]) & set(first)


def test_no_noun_of_a_list_stands_between(told: dict[str, Promptset]) -> None:
    for prompts in told.values():
        for text in prompts.texts:
            _, first, between, second = parts(text)
            assert not {*first, *second} & set(re.findall(r"\w+", between))


def test_scenarios_change_the_text_between_or_the_preface(told: dict[str, Promptset]) -> None:
    prompts = told["repeat"]
    for kind in KINDS:
        cells = {scenario: [parts(text) for text in of_cell(prompts, kind, scenario)] for scenario in SCENARIOS}
        for item, (preface, first, between, _) in enumerate(cells["intact"]):
            others = {scenario: cells[scenario][item] for scenario in SCENARIOS}
            assert all(other[1] == first for other in others.values())
            scrambled, short = others["scrambled"][2], others["short"][2]
            assert sorted(re.findall(r"\w+", scrambled)) == sorted(re.findall(r"\w+", between))
            assert scrambled != between
            assert n_tokens(scrambled) == n_tokens(between)
            assert between.startswith(f"{short} ")
            assert short.count(".") == 1
            assert re.fullmatch(r"(The capital of \w+ is \w+\. ?)+", others["incongruent"][2])
            assert others["other_preface"][2] == between
            assert others["other_preface"][0] != preface
            for scenario in ("intact", "incongruent"):
                assert 47 - 14 < n_tokens(others[scenario][2]) <= 47


@pytest.mark.parametrize("first_list", ["absent", "filler"])
def test_without_a_first_list_only_the_second_is_named(first_list: str, told: dict[str, Promptset]) -> None:
    prompts = noun_list_scenarios(WORDS, seed=0, scenarios=["intact"], first_list=first_list)
    assert not any(name.startswith("list1") for name in prompts.clean.labels)
    assert noun_places(prompts, "list2", "the test").shape == (len(prompts), 4)
    intact = [text for kind in KINDS for text in of_cell(told["repeat"], kind, "intact")]
    for text, whole in zip(prompts.texts, intact, strict=True):
        preface, first, between, second = parts(whole)
        start, _, rest = text.partition(f". {between}" if first_list == "absent" else f" {between}")
        assert rest == f" Then {preface.split()[0]} read the list again: {', '.join(second)}."
        assert start.startswith(preface.rstrip(":"))
        assert not set(first) & set(re.findall(r"\w+", start))
        if first_list == "filler":
            assert len(re.findall(r"\w+", start.removeprefix(f"{preface}: "))) == 2 * len(first) - 1


def test_nouns_are_named_where_they_stand(told: dict[str, Promptset]) -> None:
    prompts = told["novel"]
    for number, name in ((1, "list1"), (3, "list2")):
        places = noun_places(prompts, name, "the test")
        for item, text in enumerate(prompts.texts):
            words = [WORDS.tokenizer.decode(int(prompts.clean.ids[item, at])).strip() for at in places[item].tolist()]
            assert words == parts(text)[number]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"kinds": ["abstract"]}, "kinds is 'abstract': choose one of arbitrary, semantic, mixed"),
        ({"kinds": ["mixed", "mixed"]}, "kinds is .*: name each once"),
        ({"scenarios": []}, r"scenarios is \[\]: give a list such as \[intact\]"),
        ({"first_list": "none"}, "choose one of told, absent, filler"),
        ({"condition": "shuffle"}, "choose one of repeat, permute, novel"),
        ({"n_lists": 1}, "n_lists is 1: give a whole number of at least 2"),
        ({"n_nouns": 2}, "n_nouns is 2: give a whole number of at least 3"),
        ({"n_between": 5}, "n_between is 5: give a whole number from 20 to"),
        ({"n_between": 500}, "n_between is 500"),
        ({"kinds": ["semantic"], "n_nouns": 7}, "semantic lists of 7 nouns need 1 categories .* lower n_nouns"),
        ({"kinds": ["mixed"], "n_nouns": 7}, "mixed lists of 7 nouns need 7 categories"),
        ({"kinds": ["semantic"], "n_nouns": 6, "n_lists": 6}, "6 semantic lists .* give 5: lower n_lists"),
    ],
)
def test_what_cannot_be_told_is_refused(parameters: dict, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        noun_list_scenarios(WORDS, seed=0, **parameters)
