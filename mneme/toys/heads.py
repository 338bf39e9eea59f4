"""Small models of GPT-2 shape for toy tasks, and what their heads do while they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.arguments import whole_number
from mneme.errors import BadInput
from mneme.sigmoid_attention import SigmoidConfig, SigmoidForCausalLM, attention_weights, head_parts


@dataclass(frozen=True)
class ToyShape:
    """Sizes of a toy model; raises BadInput where they do not fit together."""

    n_layers: int
    n_heads: int
    width: int

    def __post_init__(self) -> None:
        for name, size in (("n_layers", self.n_layers), ("n_heads", self.n_heads), ("width", self.width)):
            whole_number(name, size, 1)
        if self.width % self.n_heads:
            raise BadInput(f"width {self.width} is no multiple of n_heads {self.n_heads}: change one of them")


def toy_model(
    shape: ToyShape, vocab_size: int, context: int, *, first_id: int | None = None, is_sigmoid: bool = False
) -> GPT2LMHeadModel:
    """A new GPT-2 without dropout, from torch's random state; `is_sigmoid`: the same with sigmoid attention."""
    config_class, model_class = (SigmoidConfig, SigmoidForCausalLM) if is_sigmoid else (GPT2Config, GPT2LMHeadModel)
    config = config_class(
        vocab_size=vocab_size,
        n_positions=context,
        n_embd=shape.width,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=first_id,
        eos_token_id=first_id,
    )
    return model_class(config)


def forward_with_heads(model: Any, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One forward with what its heads attend to.

    Returns logits [item position vocab], attention [layer item head query key] (as the model weighs, rows of sigmoid
    attention do not sum to 1), values [layer item head key width].
    """
    projected: list[Tensor] = []
    handles = [
        block.attn.c_attn.register_forward_hook(lambda _module, _inputs, output: projected.append(output.detach()))
        for block in model.transformer.h
    ]
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    bias = getattr(model.config, "attention_bias", None)
    parts = [head_parts(each, model.config.n_head) for each in projected]
    attention = torch.stack([attention_weights(query, key, bias=bias) for query, key, _ in parts])
    return logits, attention, torch.stack([value for _, _, value in parts])
