"""The small models that learn the micro-world: GPT-2, Llama and GPT-NeoX shapes, and two with a fixed-size memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
)

from mneme.errors import BadInput
from mneme.lstm import lstm_model

_POSITION_SCALE = 0.03
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def new_model(shape: str, vocabulary: int, context: int, width: int, n_layers: int, n_heads: int) -> Any:
    """An untrained model of one of the shapes, with weights from torch's random state.

    `gpt2`: LayerNorm, learned positions; `llama`: RMSNorm, rotary positions, a quarter as many key and value heads;
    `neox`: rotary positions, attention and MLP side by side; `lstm`, `mamba2`: no attention, `n_heads` is not read.
    Raises: BadInput for a shape that is none of these, or heads that do not divide the width.
    """
    if shape not in _SHAPES:
        raise BadInput(f"micro_world.shape is '{shape}': choose one of {', '.join(_SHAPES)}")
    if width % n_heads:
        raise BadInput(f"micro_world: width {width} is no multiple of n_heads {n_heads}: change one of them")
    return _SHAPES[shape](vocabulary, context, width, n_layers, n_heads)


def _gpt2(vocabulary: int, context: int, width: int, n_layers: int, n_heads: int) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=context,
            n_embd=width,
            n_layer=n_layers,
            n_head=n_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            activation_function="gelu_pytorch_tanh",
            **_SPECIAL,
        )
    )
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(_POSITION_SCALE * _sinusoid(context, width))
    return model


def _llama(vocabulary: int, context: int, width: int, n_layers: int, n_heads: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_key_value_heads=max(1, n_heads // 4),
            max_position_embeddings=context,
            tie_word_embeddings=True,
            **_SPECIAL,
        )
    )


def _neox(vocabulary: int, context: int, width: int, n_layers: int, n_heads: int) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            max_position_embeddings=context,
            rotary_pct=1.0,
            use_parallel_residual=True,
            hidden_act="gelu_pytorch_tanh",
            tie_word_embeddings=True,
            **_SPECIAL,
        )
    )


def _lstm(vocabulary: int, context: int, width: int, n_layers: int, _n_heads: int) -> nn.Module:
    return lstm_model(vocabulary, width, n_layers, context, _SPECIAL["bos_token_id"])


def _mamba2(vocabulary: int, context: int, width: int, n_layers: int, _n_heads: int) -> Mamba2ForCausalLM:
    return Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=n_layers,
            state_size=32,
            expand=2,
            head_dim=32,
            num_heads=2 * width // 32,
            n_groups=1,
            chunk_size=64,
            max_position_embeddings=context,  # not a limit of the network: the longest prompt it was trained on
            tie_word_embeddings=True,
            **_SPECIAL,
        )
    )


_SHAPES: dict[str, Callable[[int, int, int, int, int], Any]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "neox": _neox,
    "lstm": _lstm,
    "mamba2": _mamba2,
}


def _sinusoid(length: int, width: int) -> Tensor:
    """[position width]; learned positions start where near ones are alike."""
    rates = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10_000.0)) / width))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, width)
