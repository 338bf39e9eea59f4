"""Answers given token by token, and whether a model says them without the context."""

from __future__ import annotations

import pytest
import torch

from mneme.closed_book import followed_by, said_closed_book
from mneme.encoding import padded
from mneme.model import LanguageModel
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.planted import uniform_model


def test_a_prompt_is_followed_by_its_answer_but_the_last_token() -> None:
    batch, said, rows = followed_by(padded([[1, 2, 3], [4, 5]]), [[7], [8, 9, 10]])
    assert batch.ids.tolist() == [[1, 2, 3, 0], [4, 5, 8, 9]]
    assert batch.lengths.tolist() == [3, 4]
    assert said.tolist() == [[7, -1, -1], [8, 9, 10]]
    assert rows.tolist() == [[2, 2, 2], [1, 2, 3]]


def questions(rows: list[list[int]], first: list[int]) -> Promptset:
    return Promptset(padded(rows, {"question_first": torch.tensor(first)}), facts={"offset": 1})


def greedy(lm: LanguageModel, row: list[int], n: int) -> list[int]:
    """What the stock model says, one whole forward a token."""
    said: list[int] = []
    for _ in range(n):
        said.append(int(lm.hf(torch.tensor([[*row, *said]]), use_cache=False).logits[0, -1].argmax()))
    return said


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_what_is_said_closed_book_is_what_whole_forwards_of_the_question_say(name: str) -> None:
    lm = LanguageModel(tiny(name, torch.float64), name, None, "cpu")
    rows = torch.randint(3, 40, (6, 12), generator=torch.Generator().manual_seed(1)).tolist()
    rows[3], first = [rows[3][0], 5, *rows[2][2:]], [8, 9, 4, 4, 10, 8]
    rows[3][4:] = rows[2][4:]
    alone = [[row[0], *row[at:]] for row, at in zip(rows, first, strict=True)]
    said = [greedy(lm, row, n) for row, n in zip(alone, [1, 3, 2, 2, 3, 2], strict=True)]
    assert said_closed_book(lm, questions(rows, first), said).all()
    other = [[*answer[:-1], (answer[-1] + 1) % 40] for answer in said]  # all but the last token are said
    assert not said_closed_book(lm, questions(rows, first), other).any()
    mixed = [one if item % 2 else two for item, (one, two) in enumerate(zip(said, other, strict=True))]
    assert said_closed_book(lm, questions(rows, first), mixed).tolist() == [False, True] * 3


def test_the_context_has_no_bearing_on_what_is_said_closed_book() -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    said = [greedy(lm, [1, 7, 8, 9], 2)] * 2
    assert said_closed_book(lm, questions([[1, 7, 8, 9], [1, 30, 31, 7, 8, 9]], [1, 3]), said).all()


def test_a_tie_says_nothing_and_without_the_label_nothing_is_known_to_be_said() -> None:
    lm = LanguageModel(uniform_model(), "uniform", None, "cpu")
    prompts = questions([[1, 2, 3]], [1])
    assert not said_closed_book(lm, prompts, [[0]]).any()
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    unnamed = Promptset(padded([[1, 2, 3]]), facts={"offset": 1})
    assert said_closed_book(lm, unnamed, [greedy(lm, [1, 2, 3], 1)]).tolist() == [False]
