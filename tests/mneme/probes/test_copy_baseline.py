import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.probe import probes
from mneme.promptset import Promptset

A, B, C, X = 10, 11, 12, 5
FIRST, LAST, OFTEN = "first", "last", "most_frequent"


def prompts(rows, correct, wrong):
    """Prompts of the given tokens, padded with A on the right: padding is no token of the prompt."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), A)
    for item, row in enumerate(rows):
        ids[item, : len(row)] = torch.tensor(row)
    return Promptset(Batch(ids, lengths), correct_ids=torch.tensor(correct), wrong_ids=torch.tensor(wrong))


def score(rows, correct, wrong, take):
    return measure(probes.get("copy_baseline"), {"take": take}, prompts(rows, correct, wrong))["values"].tolist()


def test_the_candidate_that_stands_first_last_or_most_often_is_the_guess():
    rows = [[X, A, B, B, C], [C, B, A, X, A]]
    assert score(rows, [[A], [A]], [[B, C], [B, C]], FIRST) == [1, 0]
    assert score(rows, [[A], [A]], [[B, C], [B, C]], LAST) == [0, 1]
    assert score(rows, [[A], [A]], [[B, C], [B, C]], OFTEN) == [0, 1]


def test_candidates_that_stand_there_equally_often_share_the_credit():
    assert score([[A, B, X], [A, B, C]], [[A], [A]], [[B, -1], [B, C]], OFTEN) == pytest.approx([1 / 2, 1 / 3])


def test_an_absent_candidate_never_wins_and_nothing_to_copy_earns_nothing():
    for take in (FIRST, LAST, OFTEN):
        assert score([[X, B, X], [X, X, X]], [[A], [A]], [[B], [B]], take) == [0, 0]
        assert score([[X, A, X]], [[A]], [[B]], take) == [1]


def test_one_of_several_right_answers_is_right():
    assert score([[X, B, A, C]], [[A, B]], [[C, -1]], FIRST) == [1]
    assert score([[X, B, A, C]], [[A, B]], [[C, -1]], LAST) == [0]
    assert score([[X, B, A, C]], [[A, B]], [[C, -1]], OFTEN) == pytest.approx([2 / 3])


def test_padding_is_not_read():
    assert score([[X, B], [X, B, X, X, X]], [[A], [A]], [[B], [B]], LAST) == [0, 0]


def test_it_agrees_with_a_slow_reading_of_random_prompts():
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(8, (int(torch.randint(1, 12, (1,), generator=draw)),), generator=draw) for _ in range(300)]
    answers = [torch.randperm(8, generator=draw)[:3].tolist() for _ in rows]
    correct, wrong = [each[:1] for each in answers], [each[1:] for each in answers]
    found = score([row.tolist() for row in rows], correct, wrong, OFTEN)
    for row, (right, *others), value in zip(rows, answers, found, strict=True):
        counts = {each: row.tolist().count(each) for each in (right, *others)}
        best = [each for each, count in counts.items() if count == max(counts.values()) and count]
        assert value == pytest.approx(best.count(right) / max(len(best), 1))


def test_prompts_whose_answer_stands_anywhere_are_answered_at_chance():
    draw = torch.Generator().manual_seed(0)
    rows = [(torch.randperm(3, generator=draw) + 10).tolist() for _ in range(3000)]
    for take in (FIRST, LAST, OFTEN):
        found = score(rows, [[A]] * 3000, [[B, C]] * 3000, take)
        assert sum(found) / 3000 == pytest.approx(1 / 3, abs=0.03)


def test_bad_requests_are_refused():
    bare = Promptset(Batch.of(torch.tensor([[1, 2]])))
    with pytest.raises(NotApplicable, match="needs correct and wrong answers"):
        measure(probes.get("copy_baseline"), {}, bare)
    with pytest.raises(BadInput, match=r"copy_baseline\.take"):
        score([[A]], [[A]], [[B]], "rarest")
