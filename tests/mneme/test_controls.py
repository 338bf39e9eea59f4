from collections import Counter

import pytest

from mneme.controls import matched_head_sets
from mneme.errors import BadInput


def test_control_sets_keep_the_heads_per_layer_and_exclude_the_tested_ones():
    tested = [(1, 0), (1, 3), (4, 2)]
    found = matched_head_sets(tested, 6, 12, n_draws=50, seed=0)
    assert len(found.sets) == len(set(found.sets)) == 50
    assert found.n_distinct == 45 * 11
    for each in found.sets:
        assert Counter(layer for layer, _ in each) == {1: 2, 4: 1}
        assert not set(each) & set(tested)
        assert len(set(each)) == 3


def test_the_same_seed_draws_the_same_sets_and_another_seed_others():
    first, again, other = (matched_head_sets([(0, 0)], 1, 64, n_draws=20, seed=seed).sets for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_every_set_is_listed_once_where_fewer_exist_than_are_asked_for():
    found = matched_head_sets([(0, 1), (1, 0)], 2, 4, n_draws=100, seed=0)
    assert found.n_distinct == 9
    assert set(found.sets) == {((0, a), (1, b)) for a in (0, 2, 3) for b in (1, 2, 3)}


def test_a_layer_without_free_heads_leaves_no_control():
    found = matched_head_sets([(0, 0), (0, 1), (0, 2)], 2, 4, n_draws=10, seed=0)
    assert found.sets == ()
    assert found.n_distinct == 0


def test_every_free_head_is_drawn_about_equally_often():
    found = matched_head_sets([(0, 0), (0, 1), (0, 2), (0, 3)], 1, 20, n_draws=400, seed=1)
    times = Counter(head for each in found.sets for _, head in each)
    assert set(times) == set(range(4, 20))
    assert max(times.values()) < 1.5 * min(times.values())


@pytest.mark.parametrize("tested", [[(0, 4)], [(2, 0)], [(0, 0), (0, 0)]])
def test_heads_outside_the_model_or_named_twice_are_refused(tested):
    with pytest.raises(BadInput, match="head set"):
        matched_head_sets(tested, 2, 4, n_draws=5, seed=0)
