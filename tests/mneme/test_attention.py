"""Attention rows follow from queries and keys, and only the rows that are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mneme import attention
from mneme.attention import AttentionInputs
from mneme.errors import BadInput


def inputs(*, n_kv: int = 2, n_queries: int = 7, **facts: object) -> AttentionInputs:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, n_queries, 3, generator=generator, dtype=torch.float64)
    key = torch.randn(2, n_kv, 7, 3, generator=generator, dtype=torch.float64)
    return AttentionInputs(1, query, key, torch.tensor([7, 5]), 0.7, **facts)  # type: ignore[arg-type]


def slow_map(layer: AttentionInputs) -> Tensor:
    """The whole map by loops, NaN at padded queries: [item head query key]."""
    n_items, n_heads, n_queries, n_keys = len(layer.query), layer.n_heads, layer.n_queries, layer.n_keys
    found = torch.zeros(n_items, n_heads, n_queries, n_keys, dtype=torch.float64)
    offset = n_keys - n_queries
    for item in range(n_items):
        for head in range(n_heads):
            for query in range(n_queries):
                kv_head = head * layer.key.shape[1] // n_heads
                score = layer.key[item, kv_head] @ layer.query[item, head, query] * layer.scale
                if layer.softcap is not None:
                    score = layer.softcap * torch.tanh(score / layer.softcap)
                keys = torch.arange(n_keys)
                visible = keys <= query + offset
                if layer.window is not None:
                    visible &= keys > query + offset - layer.window
                if layer.mask is not None:
                    visible = layer.mask[min(item, len(layer.mask) - 1), 0, query]
                weight = torch.where(visible, score.exp(), 0.0)
                sink = 0.0 if layer.sinks is None else layer.sinks[head].exp()
                found[item, head, query] = weight / (weight.sum() + sink)
                if query + offset >= layer.lengths[item]:
                    found[item, head, query] = torch.nan
    return found


BLOCK = (torch.arange(7)[:, None] >= torch.arange(7)) & (torch.arange(7)[:, None] // 3 == torch.arange(7) // 3)
CASES = {
    "plain": {},
    "multi-query": {"n_kv": 1},
    "no groups": {"n_kv": 4},
    "window": {"window": 3},
    "soft-cap": {"softcap": 0.8},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)},
    "mask": {"mask": BLOCK[None, None]},
    "cached keys": {"n_queries": 4},
    "everything": {"window": 2, "softcap": 1.5, "sinks": torch.ones(4, dtype=torch.float64), "n_queries": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_rows_equal_a_softmax_by_loops(case: str) -> None:
    layer = inputs(**CASES[case])  # type: ignore[arg-type]
    every = layer.rows(torch.arange(layer.n_queries))
    assert torch.allclose(every, slow_map(layer), atol=1e-12, equal_nan=True)
    assert bool((every.nan_to_num(0.0) >= 0).all())


@pytest.mark.parametrize("case", CASES)
def test_chosen_rows_heads_and_entries_are_those_of_the_map(case: str) -> None:
    layer = inputs(**CASES[case])  # type: ignore[arg-type]
    every = slow_map(layer)
    assert torch.allclose(layer.rows([3, 1], [2, 0]), every[:, [2, 0]][:, :, [3, 1]], atol=1e-12, equal_nan=True)
    queries, keys = torch.tensor([3, 3, 1, 2]), torch.tensor([0, 3, 2, 2])
    assert torch.allclose(layer.entries(queries, keys), every[:, :, queries, keys], atol=1e-12, equal_nan=True)
    own_queries, own_keys = torch.tensor([[0, 3, 2], [3, 1, 2]]), torch.tensor([[0, 1, 2], [3, 0, 1]])
    found = layer.entries(own_queries, own_keys)
    for item in range(2):
        expected = every[item, :, own_queries[item], own_keys[item]]
        assert torch.allclose(found[item], expected, atol=1e-12, equal_nan=True)
    rows = layer.rows(own_queries)
    assert torch.allclose(rows[1], every[1][:, own_queries[1]], atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_small_chunks_change_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = inputs(**CASES[case])  # type: ignore[arg-type]
    normaliser, means = layer.log_normaliser(), layer.column_means()
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 60)
    again = inputs(**CASES[case])  # type: ignore[arg-type]
    chunks = list(again.row_chunks())
    assert len(chunks) == layer.n_queries
    assert torch.allclose(torch.cat([rows for _, rows in chunks], dim=2), slow_map(layer), atol=1e-12, equal_nan=True)
    assert torch.allclose(again.log_normaliser(), normaliser, atol=1e-12, equal_nan=True)
    assert torch.allclose(again.column_means(), means, atol=1e-12)


def test_column_means_average_over_real_queries() -> None:
    layer = inputs()
    assert torch.allclose(layer.column_means(), slow_map(layer).nanmean(dim=2), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_attending_is_rows_times_values(case: str) -> None:
    layer = inputs(**CASES[case])  # type: ignore[arg-type]
    value = torch.randn(2, layer.key.shape[1], 7, 5, dtype=torch.float64)
    wide = value.repeat_interleave(4 // layer.key.shape[1], dim=1)
    expected = torch.einsum("bhqk,bhkw->bqhw", slow_map(layer).nan_to_num(0.0), wide)
    found = layer.attend(value).masked_fill(~layer.real_queries[:, :, None, None], 0.0)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(layer.attend(value, torch.tensor([2, 1])), layer.attend(value)[:, [2, 1]], atol=1e-12)


def test_half_precision_inputs_give_float32_rows_that_sum_to_one() -> None:
    layer = inputs()
    half = AttentionInputs(0, layer.query.bfloat16(), layer.key.bfloat16(), torch.tensor([7, 7]), 0.7)
    rows = half.rows(torch.arange(7))
    assert rows.dtype == torch.float32
    assert torch.allclose(rows.sum(dim=-1), torch.ones(2, 4, 7), atol=1e-6)


def test_gradients_flow_through_attending() -> None:
    layer = inputs()
    query = layer.query.clone().requires_grad_()
    value = torch.randn(2, 2, 7, 5, dtype=torch.float64)

    def run(query: Tensor) -> Tensor:
        return AttentionInputs(0, query, layer.key, layer.lengths, 0.7, softcap=2.0).attend(value)

    assert torch.autograd.gradcheck(run, query)


def test_stored_arrays_come_back_as_they_were() -> None:
    layer = inputs(**CASES["everything"], n_kv=2)  # type: ignore[arg-type]
    again = AttentionInputs.from_arrays(1, layer.to_arrays())
    assert torch.equal(again.rows([0, 1]).nan_to_num(9.0), layer.rows([0, 1]).nan_to_num(9.0))
    assert (again.window, again.softcap, again.scale) == (layer.window, layer.softcap, layer.scale)
    plain = AttentionInputs.from_arrays(0, inputs().to_arrays())
    assert plain.window is None
    assert plain.softcap is None
    assert plain.sinks is None


def test_selected_items_have_the_same_rows() -> None:
    for case in ("plain", "mask", "sinks"):
        layer = inputs(**CASES[case])  # type: ignore[arg-type]
        part = layer.select(torch.tensor([1]))
        assert torch.allclose(part.rows([0, 4]), layer.rows([0, 4])[1:], equal_nan=True)


def test_shapes_and_indices_that_do_not_fit_are_refused() -> None:
    layer = inputs()
    with pytest.raises(BadInput, match=r"query indices of layer 1 must lie in 0\.\.6"):
        layer.rows([7])
    with pytest.raises(BadInput, match="as many query as key indices"):
        layer.entries(torch.tensor([1, 2]), torch.tensor([0, 1, 1]))
    with pytest.raises(BadInput, match="kv heads that divide the heads"):
        AttentionInputs(0, layer.query, layer.key[:, [0, 1, 0]], layer.lengths, 1.0)
    with pytest.raises(BadInput, match="one length per item"):
        AttentionInputs(0, layer.query, layer.key, torch.tensor([7]), 1.0)
    with pytest.raises(BadInput, match="mask must be bool"):
        AttentionInputs(0, layer.query, layer.key, layer.lengths, 1.0, mask=torch.zeros(1, 1, 7, 7))
