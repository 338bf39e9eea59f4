"""Function tokens of a corpus whose counts are known."""

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.function_tokens import corpus_counts, function_set, is_function_token
from mneme.promptset import Promptset


def test_the_smallest_set_that_covers_the_share_is_taken():
    counts = [(7, 50), (8, 30), (9, 20)]
    assert function_set(counts, 0.4) == {7}
    assert function_set(counts, 0.5) == {7}
    assert function_set(counts, 0.51) == {7, 8}
    assert function_set(counts[::-1], 0.9) == {7, 8, 9}


def test_of_equally_frequent_tokens_the_lower_id_comes_first():
    assert function_set([(5, 10), (3, 10), (4, 10)], 0.3) == {3}


def prompts(**facts):
    ids = torch.tensor([[0, 1, 1, 2], [0, 3, 1, 0]])
    return Promptset(Batch(ids, torch.tensor([4, 3])), facts=facts)


def test_the_first_token_and_padding_belong_to_no_class():
    given = prompts(offset=1, frequencies=[[0, 90_000], [1, 60_000], [2, 30_000]])
    assert is_function_token(given, 0.4).tolist() == [[False] * 4, [False] * 4]
    assert is_function_token(given, 0.6).tolist() == [[False, True, True, False], [False, False, True, False]]


def test_a_small_corpus_is_refused_whether_it_is_counted_or_the_prompts_themselves():
    with pytest.raises(NotApplicable, match="100000 tokens at least, and this one has 99999"):
        corpus_counts(prompts(offset=1, frequencies=[[1, 99_999]]))
    with pytest.raises(NotApplicable, match="this one has 5"):
        corpus_counts(prompts(offset=1))


def test_prompts_that_are_many_enough_are_their_own_corpus():
    ids = torch.tensor([1, 1, 2, 3]).repeat(1000, 30)
    ids = torch.cat([torch.zeros(1000, 1, dtype=torch.int64), ids], dim=1)
    assert corpus_counts(Promptset(Batch.of(ids), facts={"offset": 1})) == [(1, 60_000), (2, 30_000), (3, 30_000)]


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1, "0.4", True])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(BadInput, match="coverage"):
        is_function_token(prompts(frequencies=[[1, 200_000]]), coverage)
