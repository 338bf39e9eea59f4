"""A GPT-2 whose attention is not normalised: each weight a sigmoid, as a control of what softmax does to attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention


def head_parts(projected: Tensor, n_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value [item head position width] out of GPT-2's joint projection [item position 3 x width]."""
    n_items, n_positions, _ = projected.shape
    parts = projected.view(n_items, n_positions, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def attention_weights(query: Tensor, key: Tensor, *, bias: float | None = None) -> Tensor:
    """Causal attention [... query key] from queries and keys [... position width].

    bias None: softmax over the keys. Else sigmoid(q k / sqrt(width) + bias), each key on its own: a row need not sum
    to 1.
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    if bias is None:
        return scores.masked_fill(is_later, -torch.inf).softmax(dim=-1)
    return torch.sigmoid(scores + bias).masked_fill(is_later, 0.0)


class SigmoidConfig(GPT2Config):  # type: ignore[misc]
    """Sizes of a `SigmoidForCausalLM`: those of a GPT-2."""

    model_type = "mneme-sigmoid"

    @property
    def attention_bias(self) -> float:
        """What is added to each score: -ln(context), so that a row weighs about 1 in all at first."""
        return -math.log(self.n_positions)


class SigmoidAttention(GPT2Attention):  # type: ignore[misc]
    """Attention of `attention_weights` with a bias; it keeps no cache."""

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """Mixed values [item position width] and the weights [item head query key]."""
        query, key, value = head_parts(self.c_attn(hidden_states), self.num_heads)
        weights = attention_weights(query, key, bias=self.config.attention_bias)
        return self.c_proj((weights @ value).transpose(1, 2).flatten(2)), weights


class SigmoidForCausalLM(GPT2LMHeadModel):  # type: ignore[misc]
    """GPT-2 with sigmoid attention (METHODS 18: a sink needs rows that must sum to 1).

    Shape: input_ids [item position] -> logits [item position vocab]. It is saved under its own type and its attention
    does not go through the library's functions: it is measured by its behavior only, and never taken for a GPT-2.
    Source: Gu et al. 2024 (sigmoid attention without normalisation); the bias: Ramapuram et al. 2024
    """

    config: SigmoidConfig
    config_class = SigmoidConfig

    def __init__(self, config: SigmoidConfig) -> None:
        super().__init__(config)
        for index, block in enumerate(self.transformer.h):
            block.attn = SigmoidAttention(config, layer_idx=index)
        self.post_init()


AutoConfig.register(SigmoidConfig.model_type, SigmoidConfig, exist_ok=True)
AutoModelForCausalLM.register(SigmoidConfig, SigmoidForCausalLM, exist_ok=True)
