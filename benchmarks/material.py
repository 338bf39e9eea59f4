"""The models and prompts that all contenders get: random weights and tokens from one seed."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

N_ITEMS, N_TOKENS, N_SHARED = 16, 16, 10
GPT2 = {"model_type": "gpt2", "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
    "max_position_embeddings": 16_384,
}
SHAPES = {"gpt2": GPT2, "llama": LLAMA}


def model_folder(shape: str, folder: Path) -> Path:
    """A saved model of random weights: GPT-2 small's shape, or a small grouped-query Llama's."""
    where = folder / shape
    if not where.is_dir():
        settings = dict(SHAPES[shape])
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(
            where
        )
    return where


def stock_model(folder: Path) -> PreTrainedModel:
    """The stock model of a folder, without gradients."""
    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)


def pairs(vocab_size: int, shared: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base and donor ids [item position] with a shared prefix, and correct and wrong answers [item]."""
    generator = torch.Generator().manual_seed(1)
    base, donor = torch.randint(vocab_size, (2, N_ITEMS, N_TOKENS), generator=generator)
    donor[:, :shared] = base[:, :shared]
    answers = torch.randint(vocab_size, (2, N_ITEMS), generator=generator)
    return base, donor, answers[0], answers[1]


def sampled_cells(n_layers: int, n_heads: int, n_cells: int) -> list[tuple[int, int, int]]:
    """Cells (layer, position, head) for the sweep that is too long to run whole elsewhere, evenly over the depth."""
    generator = torch.Generator().manual_seed(2)
    draws = torch.rand(n_cells, 3, generator=generator)
    return [
        (int(place * n_layers / n_cells), int(row[1] * N_TOKENS), int(row[2] * n_heads))
        for place, row in enumerate(draws)
    ]
