"""A model that answers right gets all of it, one that cannot tell gets nothing, one that guesses gets chance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from mneme.microworld.documents import INDUCTION, Library, world_words
from mneme.microworld.exam import Exam
from mneme.microworld.tokenizer import word_tokenizer
from mneme.promptset import Vocabulary

ITEMS = 100
ASKED = ("greater_than", "ioi", INDUCTION)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = word_tokenizer(world_words(), 512)
    special = frozenset(tokenizer.all_special_ids)
    return Vocabulary(len(tokenizer), 512, "native", tokenizer.bos_token_id, special, tokenizer)


@pytest.fixture(scope="module")
def exam(vocabulary: Vocabulary) -> Exam:
    return Exam(vocabulary, ITEMS, ASKED)


class Repeating:
    """Says what stood after the last token when it stood before; knows nothing else."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, ids: Tensor) -> SimpleNamespace:
        logits = torch.zeros(*ids.shape, self.size)
        for row, tokens in enumerate(ids.tolist()):
            last: dict[int, int] = {}
            for at, token in enumerate(tokens):
                if token in last:
                    logits[row, at, tokens[last[token] + 1]] = 50.0
                last[token] = at
        return SimpleNamespace(logits=logits)


class Scripted:
    """Has its own logits of the next token, [vocab], after every token of every text."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(*ids.shape, -1))


def test_a_model_that_repeats_what_followed_is_right_in_every_repeated_list(exam: Exam, vocabulary: Vocabulary) -> None:
    found = exam.measure(Repeating(vocabulary.size))[INDUCTION]
    assert (found.value, found.low, found.high, found.n_items) == (1.0, 1.0, 1.0, ITEMS // 4)
    assert found.unit == "fraction"


def test_a_model_that_finds_all_tokens_alike_gets_what_the_numbers_of_answers_give(
    exam: Exam, vocabulary: Vocabulary
) -> None:
    found = exam.measure(Scripted(torch.zeros(vocabulary.size)))
    assert found["ioi"].value == 0.0  # one right answer is never likelier than one or two wrong ones
    assert 0.3 < found["greater_than"].value < 0.7  # right where more years lie above than below
    assert found[INDUCTION].value < 0.05


def test_a_model_that_likes_some_names_better_gets_chance_between_two_names(vocabulary: Vocabulary) -> None:
    likes = torch.randn(vocabulary.size, generator=torch.Generator().manual_seed(0))
    (found,) = Exam(vocabulary, 400, ["ioi"]).measure(Scripted(10 * likes)).values()
    assert found.n_items == 400
    assert 0.3 < found.value < 0.6  # one name in two, in a third of the prompts one in three


def test_the_exam_is_the_same_each_time(exam: Exam, vocabulary: Vocabulary) -> None:
    model = Scripted(torch.arange(vocabulary.size) / 10)
    again = Exam(vocabulary, ITEMS, ASKED).measure(model)
    assert again == exam.measure(model)


class Reader:
    """Reads '... A and B ... A gave ... to': says the one of the two who does not give, or the giver."""

    def __init__(self, vocabulary: dict[str, int], says_the_giver: bool = False) -> None:
        self.size, self.and_id, self.says_the_giver = len(vocabulary), vocabulary["and"], says_the_giver
        self.pairs: set[frozenset[int]] = set()

    def __call__(self, ids: Tensor) -> SimpleNamespace:
        logits = torch.zeros(*ids.shape, self.size)
        for row, tokens in enumerate(ids.tolist()):
            at = tokens.index(self.and_id)
            pair = [tokens[at - 1], tokens[at + 1]]
            giver = next(each for each in reversed(tokens) if each in pair)
            (other,) = set(pair) - {giver}
            logits[row, :, giver if self.says_the_giver else other] = 20.0
            self.pairs.add(frozenset(pair))
        return SimpleNamespace(logits=logits)


def test_a_model_that_says_the_right_name_is_right_and_one_that_says_the_giver_is_wrong(
    vocabulary: Vocabulary,
) -> None:
    words = word_tokenizer(world_words(), 512).get_vocab()
    right, wrong = (
        Exam(vocabulary, 30, ["ioi"]).measure(Reader(words, says_the_giver))["ioi"] for says_the_giver in (False, True)
    )
    assert (right.value, right.n_items) == (1.0, 30)
    assert wrong.value == 0.0


def test_no_pair_of_names_that_is_asked_stands_in_a_training_document(vocabulary: Vocabulary) -> None:
    words = word_tokenizer(world_words(), 512).get_vocab()
    asked = Reader(words)
    Exam(vocabulary, 100, ["ioi"]).measure(asked)
    library, rng, shown = Library(words, 127), np.random.default_rng(0), Reader(words)
    for _ in range(300):
        shown(torch.tensor([library.of("ioi", rng).ids]))
    assert len(asked.pairs) > 5
    assert len(shown.pairs) > 100
    assert not asked.pairs & shown.pairs
