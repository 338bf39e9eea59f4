"""Accuracy by place and by reading, group by group: numbers by hand and readers whose answer is known."""

import pytest
import torch

from mneme.answers import PairedAnswers
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.probe import probes
from mneme.probes.read_twice_gain import read_twice_gain
from mneme.probes.u_index import u_index
from mneme.promptset import Promptset
from mneme.scores import AnswerScores
from mneme.summaries import summarise

PLACES = [0.0, 3, 6, 9, 12, 15, 18]


def answered(is_right):
    """Scores of prompts that are answered right or wrong."""
    right = torch.tensor(is_right, dtype=torch.float32)
    blank = torch.zeros(len(right))
    return PairedAnswers(
        AnswerScores(right[:, None], torch.full((len(right), 1), 0.5), blank, blank, blank, blank), None
    )


def grouped(condition, values, n_groups):
    """Groups of prompts that differ in a condition, prompt by prompt of a group."""
    n = len(values) * n_groups
    clusters = torch.arange(n_groups).repeat_interleave(len(values))
    conditions = {condition: torch.tensor(values * n_groups, dtype=torch.float64)}
    return Promptset(Batch.of(torch.zeros(n, 2, dtype=torch.int64)), clusters=clusters, conditions=conditions)


def test_a_reader_that_is_right_at_every_place_has_no_u():
    found = u_index(answered([1] * 14), grouped("place", PLACES, 2))
    assert found[[0, 7]].tolist() == [0, 0]
    assert torch.isnan(found).sum() == 12
    assert float(u_index(answered([0] * 7), grouped("place", PLACES, 1))[0]) == 0


def test_a_reader_of_the_first_and_last_thirds_has_all_of_u():
    assert float(u_index(answered([1, 1, 0, 0, 0, 1, 1]), grouped("place", PLACES, 1))[0]) == 1
    assert float(u_index(answered([0, 0, 1, 1, 1, 0, 0]), grouped("place", PLACES, 1))[0]) == -1


def test_u_is_half_the_ends_minus_the_mean_of_the_middle_third_and_primacy_is_their_difference():
    scores, prompts = answered([1, 0, 1, 0, 0, 1, 0]), grouped("place", PLACES, 1)
    assert float(u_index(scores, prompts)[0]) == pytest.approx(1 / 2 - 1 / 3)
    assert float(u_index(scores, prompts, compare="first_with_last")[0]) == 1


def test_a_group_that_lacks_a_place_has_no_number_and_leaves_the_others_theirs():
    prompts = grouped("place", PLACES, 3)
    kept = torch.tensor([each for each in range(21) if each not in (13, 14, 16, 17, 18)])  # last; first and the middle
    assert u_index(answered([1, 1, 0, 0, 0, 1, 1] * 3), prompts)[[0, 7, 14]].tolist() == [1, 1, 1]
    scores = answered([[1, 1, 0, 0, 0, 1, 1][each % 7] for each in kept.tolist()])
    found = u_index(scores, prompts.select(kept))
    assert float(found[0]) == 1
    assert torch.isnan(found[1:]).all()


def test_the_order_of_the_prompts_moves_the_number_with_its_prompt():
    prompts, is_right = grouped("place", PLACES, 2), [1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    together = u_index(answered(is_right), prompts)
    shuffled = u_index(answered([is_right[each] for each in order.tolist()]), prompts.select(order))
    torch.testing.assert_close(shuffled, together[order], equal_nan=True)
    alone = u_index(answered(is_right[7:]), prompts.select(slice(7, 14)))
    torch.testing.assert_close(alone, together[7:], equal_nan=True)


def test_the_gain_of_a_second_reading_is_counted_item_by_item():
    prompts = grouped("reads", [1.0, 2.0], 4)
    found = read_twice_gain(answered([0, 1, 1, 1, 1, 0, 0, 0]), prompts)
    assert found[1::2].tolist() == [1, 0, -1, 0]
    assert torch.isnan(found[::2]).all()


def test_groups_are_what_the_interval_is_over():
    prompts = grouped("reads", [1.0, 2.0], 40)
    values = read_twice_gain(answered([0, 1, 1, 1] * 20), prompts)
    row = summarise(probes.get("read_twice_gain"), {"values": values}, prompts, {}, 0)["behavior"][0]
    assert row["value"] == 0.5
    assert row["n_items"] == row["n_clusters"] == 40
    assert 0.3 < row["ci_low"] < 0.5 < row["ci_high"] < 0.7


def test_prompts_without_the_condition_or_without_its_places_are_not_measured():
    scores = answered([1] * 6)
    with pytest.raises(NotApplicable, match="the condition 'place', and these have reads"):
        u_index(scores, grouped("reads", [1.0, 2.0], 3))
    with pytest.raises(NotApplicable, match="first, the last and a middle place"):
        u_index(scores, grouped("place", [0.0, 1.0], 3))
    with pytest.raises(NotApplicable, match="first, the last and a middle place"):
        u_index(scores, grouped("place", [4.0], 6))
    with pytest.raises(NotApplicable, match="read once and twice"):
        read_twice_gain(scores, grouped("reads", [2.0], 6))
    with pytest.raises(BadInput, match="compare is 'all'"):
        u_index(scores, grouped("place", PLACES, 1), compare="all")
