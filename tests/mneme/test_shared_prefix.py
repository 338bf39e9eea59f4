"""Prompts run as a tree of prefixes equal plain forwards, and what they share runs once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.encoding import padded
from mneme.errors import BadInput, NotApplicable
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.shared_prefix import prefix_tree, run_shared
from tests.architectures import INSIDE, tiny

TRUNK = list(range(3, 33))
ROWS = [
    [*TRUNK, 7],
    [*TRUNK[:20], 35, 36, 37],
    [*TRUNK[:20], 35, 36, 38, 39],
    [*TRUNK[:6], 39, *TRUNK[6:18], 5, 6],
    [*TRUNK[:6], 39, *TRUNK[6:18], 9],
    [1, 2, 3, 4],
    [*TRUNK, 7],
]
LAST = torch.tensor([[len(row) - 2, len(row) - 1] for row in ROWS])


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def no_visit(*_: object) -> None:
    """Nothing to see."""


def test_the_tree_shares_what_prompts_have_in_common_and_no_token_of_their_own() -> None:
    tree = prefix_tree(padded(ROWS), LAST[:, 0], least_shared=1)
    assert tree.n_tokens == tree.n_distinct
    assert tree.parents[5] == -1  # it begins like no other
    # others take 6 or 20 tokens of the trunk; two take all that they share with a twin, and the same row again
    # takes 29, but for the positions that are their own
    assert sorted(tree.starts) == [0, 0, 6, 19, 20, 21, 29]
    assert tree.n_tokens == sum(len(row) for row in ROWS) - 6 - 19 - 20 - 21 - 29
    assert all(start <= int(own) for start, own in zip(tree.starts, LAST[:, 0], strict=True))


def test_a_part_too_short_to_be_worth_a_branch_runs_again() -> None:
    tree = prefix_tree(padded(ROWS), LAST[:, 0], least_shared=16)
    assert tree.n_tokens > tree.n_distinct
    assert min(start for start in tree.starts if start) >= 16
    alone = prefix_tree(padded([[1, 2, 3], [4, 5, 6]]), torch.tensor([2, 2]))
    assert alone.parents == (-1, -1)


def seen(lm: LanguageModel, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Final hidden states at the rows, and the attention rows of every layer padded to one number of keys."""
    found = torch.zeros(len(batch), lm.n_layers, lm.n_heads, rows.shape[1], batch.ids.shape[1], dtype=torch.float64)

    def visit(call: AttentionCall, items: Tensor, local: Tensor) -> None:
        probabilities = call.inputs(torch.full((len(items),), call.key.shape[2])).rows(local)
        found[items, call.layer, :, :, : call.key.shape[2]] = probabilities.double()

    return run_shared(lm, batch, rows, visit), found


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_hidden_states_and_attention_equal_those_of_each_prompt_alone(name: str) -> None:
    lm, batch = model(name), padded(ROWS)
    hidden, attention = seen(lm, batch, LAST)
    for item, row in enumerate(ROWS):
        alone, its_attention = seen(lm, padded([row]), LAST[item : item + 1])
        plain = lm.backbone.hidden(torch.tensor([row]))[:, -2:]
        torch.testing.assert_close(alone, plain, atol=1e-7, rtol=1e-5)
        torch.testing.assert_close(hidden[item : item + 1], plain, atol=1e-7, rtol=1e-5)
        keys = slice(0, len(row))
        torch.testing.assert_close(attention[item, ..., keys], its_attention[0, ..., keys], atol=1e-6, rtol=1e-5)


def test_what_is_shared_runs_once() -> None:
    lm, batch, queries = model("llama"), padded(ROWS), []

    def visit(call: AttentionCall, items: Tensor, _: Tensor) -> None:
        if call.layer == 0:
            queries.append((len(items), call.query.shape[2]))

    run_shared(lm, batch, LAST, visit)
    taken = sum(items * n for items, n in queries)
    tree = prefix_tree(batch, LAST[:, 0])
    assert taken == tree.n_tokens < sum(len(row) for row in ROWS)


def test_few_prompts_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, batch = model("gpt2"), padded(ROWS)
    whole = run_shared(lm, batch, LAST, no_visit)
    monkeypatch.setattr("mneme.batching.STORED_ELEMENTS", 1)  # one stem at a time
    torch.testing.assert_close(run_shared(lm, batch, LAST, no_visit), whole, atol=1e-12, rtol=1e-9)


def test_latent_attention_shares_too() -> None:
    lm = model("deepseek_v3")
    assert lm.structure is not None
    assert not lm.structure.has_plain_cache
    first: set[int] = set()
    run_shared(lm, padded(ROWS), LAST, lambda call, *_: first.add(call.first_query))
    assert first > {0}


def test_a_model_that_cannot_be_packed_runs_each_prompt_alone_and_shares_nothing() -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    assert lm.structure is not None
    lm.structure = replace(lm.structure, runs_packed=False)
    calls: list[tuple[int, int]] = []
    before = lm.forwards
    hidden = run_shared(lm, padded(ROWS), LAST, lambda call, items, _: calls.append((call.first_query, len(items))))
    assert set(calls) == {(0, 1)}
    assert lm.forwards - before == len(ROWS)
    torch.testing.assert_close(hidden, run_shared(model("llama"), padded(ROWS), LAST, no_visit), atol=1e-7, rtol=1e-5)


def test_progress_counts_prompts() -> None:
    told: list[tuple[int, int]] = []

    def note(done: int, total: int, _: str = "") -> None:
        told.append((done, total))

    run_shared(model("gpt2"), padded(ROWS), LAST, no_visit, progress=note)
    assert told[-1] == (7, 7)
    assert told == sorted(told)


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(BadInput, match="rows must lie inside their prompts"):
        run_shared(model("gpt2"), padded(ROWS), LAST + 1, no_visit)
    with pytest.raises(BadInput, match="rows must lie inside their prompts"):
        run_shared(model("gpt2"), padded(ROWS), LAST[:3], no_visit)
    outside = LanguageModel(tiny("bloom"), "bloom", None, "cpu")
    with pytest.raises(NotApplicable, match="attention interface"):
        run_shared(outside, padded(ROWS), LAST, no_visit)
