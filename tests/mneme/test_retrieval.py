"""Copy and paste by attention: the known answers of METHODS 2a, scripted, and what earns no credit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.retrieval import copied_share, top_keys, unigram_recall, words_of

FIRST, LAST = 5, 14  # a needle of ten distinct tokens
IDS = torch.arange(100, 130)[None]
NEEDLE = IDS[0, FIRST : LAST + 1]
SPAN = torch.tensor([FIRST]), torch.tensor([LAST])


def score(top: list[int], said: Tensor | None, **options) -> float:
    return float(
        copied_share(torch.tensor(top)[None, None, None], IDS, None if said is None else said[None], SPAN, **options)
    )


def test_ten_of_ten_tokens_copied_are_the_whole_needle() -> None:
    assert score(list(range(FIRST, LAST + 1)), NEEDLE) == 1.0


def test_four_of_ten_tokens_copied_are_four_tenths() -> None:
    assert score([*range(FIRST, FIRST + 4), *[0] * 6], NEEDLE) == pytest.approx(0.4)


def test_a_token_said_twice_counts_once_but_twice_in_the_public_codes_count() -> None:
    top, said = [*range(FIRST, LAST + 1), FIRST], torch.cat([NEEDLE, NEEDLE[:1]])
    assert score(top, said) == 1.0
    assert score(top, said, repeats=True) == pytest.approx(1.1)


def test_attention_one_position_late_earns_nothing_unless_the_shift_counts() -> None:
    late = list(range(FIRST + 1, LAST + 2))
    assert score(late, NEEDLE) == 0.0
    assert score(late, NEEDLE, shift=1) == 1.0
    assert score([*range(FIRST, FIRST + 5), *late[5:]], NEEDLE, shift=1) == 1.0
    assert score(list(range(FIRST + 2, LAST + 3)), NEEDLE, shift=1) == 0.0


def test_with_the_shift_one_step_may_hit_two_places_of_a_repeated_token() -> None:
    ids = torch.tensor([[1, 7, 7, 2]])
    top, said = torch.tensor([[[[2]]]]), torch.tensor([[7]])
    span = torch.tensor([1]), torch.tensor([2])
    assert float(copied_share(top, ids, said, span)) == 0.5
    assert float(copied_share(top, ids, said, span, shift=1)) == 1.0
    assert float(copied_share(top, ids, said, span, shift=1, repeats=True)) == 0.5


def test_another_token_than_the_one_said_a_tie_and_a_missing_step_earn_nothing() -> None:
    assert score(list(range(FIRST, LAST + 1)), NEEDLE + 1) == 0.0
    assert score([-1] * 10, NEEDLE) == 0.0
    assert score(list(range(FIRST, LAST + 1)), torch.full((10,), -1)) == 0.0


def test_outside_the_needle_nothing_counts_and_without_said_tokens_the_span_alone() -> None:
    assert score(list(range(FIRST - 1, LAST)), IDS[0, FIRST - 1 : LAST]) == pytest.approx(0.9)  # one token before it
    assert score([FIRST, FIRST + 3, 0, 29], None) == pytest.approx(0.2)


def test_a_top_key_among_said_tokens_behind_the_prompt_earns_nothing() -> None:
    assert score([35] * 10, NEEDLE) == 0.0


def test_prompts_and_heads_are_scored_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, (3, 12), generator=generator)
    top = torch.randint(-1, 12, (3, 2, 4, 6), generator=generator)
    said = torch.randint(-1, 4, (3, 6), generator=generator)
    span = torch.tensor([2, 4, 7]), torch.tensor([5, 4, 10])
    found = copied_share(top, ids, said, span, shift=1)
    for item in range(3):
        first, last = int(span[0][item]), int(span[1][item])
        for layer in range(2):
            for head in range(4):
                hit = {
                    key - late
                    for key, token in zip(top[item, layer, head].tolist(), said[item].tolist(), strict=True)
                    for late in (0, 1)
                    if key >= 0 and token >= 0 and first <= key - late <= last and ids[item, key - late] == token
                }
                assert float(found[item, layer, head]) == pytest.approx(len(hit) / (last - first + 1))


def test_the_top_key_is_the_largest_probability_and_a_tie_has_none() -> None:
    query = torch.tensor([[[[1.0], [1.0]], [[0.0], [2.0]]]])  # one prompt, two heads, two queries
    key = torch.tensor([[[[3.0], [1.0]]]])
    inputs = AttentionInputs(0, query, key, torch.tensor([2]), scale=1.0)
    assert top_keys(inputs, torch.tensor([[0, 1]])).tolist() == [[[0, 0], [0, 0]]]
    same = AttentionInputs(0, query, torch.ones_like(key), torch.tensor([2]), scale=1.0)
    assert top_keys(same, torch.tensor([[0, 1]])).tolist() == [[[0, -1], [0, -1]]]


@pytest.mark.parametrize("most", [1, 70, 1 << 20])
def test_top_keys_do_not_depend_on_how_many_steps_go_together(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 2, 9, 8, generator=generator)
    inputs = AttentionInputs(layer=0, query=query, key=key, lengths=torch.tensor([9, 9]), scale=0.3)
    rows = torch.tensor([[0, 3, 5], [1, 2, 4]])
    monkeypatch.setattr("mneme.retrieval.MOST_PROBABILITIES", most)
    found = top_keys(inputs, rows)
    assert found.shape == (2, 4, 3)
    for item, head, step in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        at = int(rows[item, step])
        scores = key[item, head // 2, : at + 4].double() @ query[item, head, at].double()
        assert int(found[item, head, step]) == int(scores.argmax())


def test_recall_is_the_share_of_the_needles_words_each_as_often() -> None:
    assert unigram_recall(["the", "cat", "sat", "on", "the", "mat"], ["the", "the", "the", "cat"]) == 0.75
    assert unigram_recall([], [4]) == 0.0
    assert unigram_recall([9, 4, 4], [4]) == 1.0
    assert words_of("Eat a sandwich, Mary!") == ["eat", "a", "sandwich", "mary"]
