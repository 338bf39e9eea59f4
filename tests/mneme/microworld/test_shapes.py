"""Each shape is what it says, of the size it was asked for, and drawn from torch's random state alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mneme.errors import BadInput
from mneme.microworld.shapes import new_model

SHAPES = ("gpt2", "llama", "neox", "lstm", "mamba2")
WITH_ATTENTION = SHAPES[:3]


def made(shape: str, seed: int = 0, width: int = 64, n_heads: int = 8) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_model(shape, vocabulary=50, context=32, width=width, n_layers=2, n_heads=n_heads).eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_gives_a_number_for_every_word_at_every_position(shape: str) -> None:
    with torch.no_grad():
        logits = made(shape)(torch.arange(20).reshape(2, 10)).logits
    assert logits.shape == (2, 10, 50)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_sees_what_comes_later(shape: str) -> None:
    ids = torch.arange(12)[None]
    other = torch.cat([ids[:, :8], ids[:, 8:] + 20], dim=1)
    model = made(shape)
    with torch.no_grad():
        first, second = (model(each).logits for each in (ids, other))
    assert torch.allclose(first[:, :8], second[:, :8], atol=1e-5)
    assert not torch.allclose(first[:, 8:], second[:, 8:], atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_random_state_gives_the_weights(shape: str) -> None:
    first, same, other = (torch.cat([each.flatten() for each in made(shape, seed).parameters()]) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", WITH_ATTENTION)
def test_a_shape_with_attention_has_the_heads_and_layers_that_were_asked_for(shape: str) -> None:
    config = made(shape).config
    assert (config.num_attention_heads, config.num_hidden_layers, config.hidden_size) == (8, 2, 64)
    assert (config.max_position_embeddings, config.vocab_size) == (32, 50)


def test_the_llama_shape_shares_a_key_and_value_head_among_four_and_never_has_none() -> None:
    assert made("llama").config.num_key_value_heads == 2
    assert made("llama", n_heads=2).config.num_key_value_heads == 1


def test_the_gpt2_shape_learns_positions_from_where_near_ones_are_alike() -> None:
    positions = made("gpt2").transformer.wpe.weight.detach()
    assert positions.shape == (32, 64)
    # each pair of a sine and a cosine has length 0.03
    assert torch.allclose(positions.norm(dim=1), torch.full((32,), 0.03 * 32**0.5), atol=1e-6)
    near, far = (float((positions[0] * positions[each]).sum()) for each in (1, 31))
    assert near > far


def test_the_neox_shape_puts_attention_and_mlp_side_by_side_and_turns_every_channel() -> None:
    config = made("neox").config
    assert config.use_parallel_residual
    assert config.rope_parameters["partial_rotary_factor"] == 1.0


@pytest.mark.parametrize("shape", ["lstm", "mamba2"])
def test_a_shape_of_fixed_memory_does_not_read_the_number_of_heads(shape: str) -> None:
    counts = {sum(each.numel() for each in made(shape, n_heads=n_heads).parameters()) for n_heads in (1, 8)}
    assert len(counts) == 1


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(BadInput, match="shape is 'rnn': choose one of gpt2, llama, neox, lstm, mamba2"):
        made("rnn")
    with pytest.raises(BadInput, match="width 64 is no multiple of n_heads 5"):
        made("gpt2", n_heads=5)
