"""Tiny random models of many architectures, each with its feature switched on and biting."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

torch.set_num_threads(1)  # tiny models lose by more
VOCABULARY = 40
GQA = {"num_attention_heads": 4, "num_key_value_heads": 2}
BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = BASE | GQA
SLIDING = {"sliding_window": 6}
EXPERTS = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

# model_type -> (what it exercises, config)
INSIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "learned positions, fused q/k/v, biases",
        {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gpt_neox": ("parallel block, partial rotary, interleaved q/k/v", BASE | {"rotary_pct": 0.5}),
    "gpt_bigcode": (
        "multi-query",
        {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64, "multi_query": True},
    ),
    "opt": ("offset positions, biases", BASE | {"ffn_dim": 24, "word_embed_proj_dim": 16}),
    "phi": ("parallel block with biases", BASE | {"partial_rotary_factor": 0.5}),
    "phi3": ("fused q/k/v projections, sliding window", LLAMA | SLIDING),
    "llama": ("grouped queries", LLAMA),
    "qwen2": ("q/k/v biases, grouped queries", LLAMA),
    "qwen3": ("q/k norms, head width apart from d/H", LLAMA | {"head_dim": 8}),
    "qwen3_moe": ("experts, q/k norms", LLAMA | EXPERTS | {"head_dim": 8}),
    "mistral": ("sliding window in all layers", LLAMA | SLIDING),
    "mixtral": ("experts", LLAMA | EXPERTS),
    "gemma": ("wide heads, multi-query, scaled embeddings", BASE | {"head_dim": 8, "num_key_value_heads": 1}),
    "gemma2": (
        "soft-capped scores and logits, post-norms, alternate sliding window",
        LLAMA | SLIDING | {"head_dim": 8, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 1},
    ),
    "gemma3_text": ("q/k norms, two rotary bases, sliding window in 5 of 6 layers", LLAMA | SLIDING | {"head_dim": 8}),
    "olmo": ("norms without weights, clipped q/k/v", LLAMA | {"clip_qkv": 0.5}),
    "olmo2": ("post-norms, q/k norms", LLAMA),
    "stablelm": ("partial rotary, LayerNorm, grouped queries", LLAMA | {"partial_rotary_factor": 0.5}),
    "starcoder2": ("LayerNorm with biases, sliding window", LLAMA | SLIDING),
    "deepseek_v3": (
        "multi-head latent attention: value heads narrower than query heads",
        BASE | EXPERTS | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
         "qk_nope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
         "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "smollm3": ("layers without positions", LLAMA | {"no_rope_layers": [1, 1, 0]}),
    "granite": (
        "own attention, residual and logit scales",
        LLAMA | {"attention_multiplier": 0.7, "residual_multiplier": 0.5, "logits_scaling": 3.0},
    ),
    "cohere": ("parallel block, logit scale, q/k norms", LLAMA | {"use_qk_norm": True}),
    "cohere2": ("parallel block, sliding window in 3 of 4 layers", LLAMA | SLIDING | {"num_hidden_layers": 4}),
    "glm4": ("post-norms, half rotary", LLAMA | {"head_dim": 4}),
    "gpt_oss": ("learned sinks, sliding window, experts", LLAMA | SLIDING | EXPERTS | {"head_dim": 8}),
    "nemotron": ("LayerNorm with 1 + w, squared ReLU", LLAMA),
}  # fmt: skip

OUTSIDE: dict[str, dict[str, Any]] = {
    "gptj": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4},
    "gpt_neo": {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "num_heads": 4,
                "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]], "window_size": 6},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 4},
    "falcon": BASE | {"num_hidden_layers": 2, "new_decoder_architecture": False},
    "mamba2": {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8,
               "state_size": 4, "n_groups": 1, "expand": 2, "chunk_size": 8},
}  # fmt: skip

# Through the attention interface, but in ways of their own
STRANGE: dict[str, dict[str, Any]] = {
    "llama4_text": LLAMA | EXPERTS | {"head_dim": 4, "intermediate_size_mlp": 24, "interleave_moe_layer_step": 2,
                    "no_rope_layers": [1, 1, 0], "attn_temperature_tuning": False},
}  # fmt: skip


def tiny(model_type: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A seeded random model whose attention is far from uniform, in eval mode."""
    settings = (OUTSIDE | STRANGE)[model_type] if model_type in OUTSIDE | STRANGE else INSIDE[model_type][1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(settings | changes)))
        for name, weights in hf.named_parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=0.25)
            elif "bias" in name or "sinks" in name:
                torch.nn.init.normal_(weights, std=0.5)
    return hf.to(dtype).eval().requires_grad_(False)
