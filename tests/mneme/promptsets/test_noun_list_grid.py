"""The grid of lists: every cell holds what `verbatim_list` tells, and the conditions say which cell it is."""

from __future__ import annotations

import re

import pytest
import torch

from mneme.errors import BadInput
from mneme.list_surprisal import noun_places
from mneme.promptset import Promptset
from mneme.promptsets.noun_list_grid import noun_list_grid
from tests.scene_vocabularies import word_vocabulary

WORDS = word_vocabulary("verbatim_list")
SIZES, LENGTHS, N_LISTS = [3, 5], [26, 60], 2


@pytest.fixture(scope="module")
def grid() -> Promptset:
    return noun_list_grid(WORDS, seed=0, n_nouns=SIZES, n_between=LENGTHS, n_lists=N_LISTS)


def lists_in(text: str) -> tuple[list[str], int, list[str]]:
    first, between, second = re.fullmatch(
        r"\w+ wrote down this list of words: ([\w, ]+)\.(.*) Then \w+ read the list again: ([\w, ]*)\.", text
    ).groups()
    return first.split(", "), len(re.findall(r"\w+|[.,]", between)), second.split(", ")


def test_every_cell_has_its_lists_in_all_their_shifts(grid: Promptset) -> None:
    assert len(grid) == sum(N_LISTS * size for size in SIZES for _ in LENGTHS)
    for size in SIZES:
        for length in LENGTHS:
            here = (grid.conditions["n_nouns"] == size) & (grid.conditions["n_between"] == length)
            told = [lists_in(grid.texts[each]) for each in torch.nonzero(here)[:, 0].tolist()]
            assert len(told) == N_LISTS * size
            assert all(first == second and len(first) == size for first, _, second in told)
            assert all(length - 14 < between <= length for _, between, _ in told)
            heads = sorted(first[0] for first, _, _ in told)
            assert heads == sorted(noun for first, _, _ in told[::size] for noun in first)


def test_nouns_are_named_and_a_list_that_is_over_names_no_more(grid: Promptset) -> None:
    for number, name in ((0, "list1"), (2, "list2")):
        places = noun_places(grid, name, "the test")
        assert places.shape == (len(grid), max(SIZES))
        for item, text in enumerate(grid.texts):
            named = [int(each) for each in places[item] if each >= 0]
            words = [WORDS.tokenizer.decode(int(grid.clean.ids[item, each])).strip() for each in named]
            assert words == lists_in(text)[number]


def test_shifts_of_a_list_are_a_cluster_of_their_own_in_every_cell(grid: Promptset) -> None:
    by_cluster: dict[int, set[tuple[float, float, frozenset[str]]]] = {}
    for item, text in enumerate(grid.texts):
        cell = (float(grid.conditions["n_nouns"][item]), float(grid.conditions["n_between"][item]))
        by_cluster.setdefault(int(grid.clusters[item]), set()).add((*cell, frozenset(lists_in(text)[0])))
    assert len(by_cluster) == N_LISTS * len(SIZES) * len(LENGTHS)
    assert all(len(each) == 1 for each in by_cluster.values())


@pytest.mark.parametrize(("condition", "shared"), [("permute", 1.0), ("novel", 0.0)])
def test_control_conditions_change_the_second_list(condition: str, shared: float) -> None:
    prompts = noun_list_grid(WORDS, seed=0, condition=condition, n_nouns=[3], n_between=[26], n_lists=4)
    for text in prompts.texts:
        first, _, second = lists_in(text)
        assert first != second
        assert len(set(first) & set(second)) == shared * 3


def test_one_list_in_all_has_no_clusters() -> None:
    prompts = noun_list_grid(WORDS, seed=0, n_nouns=[3], n_between=[0], n_lists=1)
    assert prompts.clusters is None
    assert len(prompts) == 3


def test_cells_draw_lists_of_their_own(grid: Promptset) -> None:
    firsts = [frozenset(lists_in(text)[0]) for text in grid.texts if len(lists_in(text)[0]) == 3]
    assert len(set(firsts)) == N_LISTS * len(LENGTHS)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_nouns": [2]}, "n_nouns is 2: give a whole number of at least 3"),
        ({"n_nouns": [3, 3]}, "name each number once"),
        ({"n_nouns": 5}, "give a list of whole numbers"),
        ({"n_between": []}, "give a list of whole numbers"),
        ({"n_between": [435, 500]}, "n_between is 500"),
        ({"n_lists": 0}, "n_lists is 0"),
        ({"condition": "shuffle"}, "choose one of repeat, permute, novel"),
    ],
)
def test_a_grid_that_cannot_be_told_is_refused(parameters: dict, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        noun_list_grid(WORDS, seed=0, **{"n_nouns": [10], "n_between": [26], "n_lists": 1, **parameters})
