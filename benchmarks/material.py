"""The models and prompts that all contenders get: random weights and tokens from one seed.

With BENCHMARKS_SMALL=1 in the environment (`python -m benchmarks --small`) everything is tiny: it shows that each case
runs, and its figures say nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SMALL = "BENCHMARKS_SMALL"
IS_SMALL = os.environ.get(SMALL) == "1"
N_ITEMS, N_TOKENS, N_ABLATED = 16, 16, 8
N_CELLS = 8 if IS_SMALL else 24  # of a sweep that TransformerLens runs; each takes one whole forward, so they scale
CIRCUIT_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)  # of all edges
COMPARED_CIRCUIT = 5  # the one that TransformerLens runs, on the first pair; time scales with circuits and pairs
N_EDGE_PAIRS = 2  # of which TransformerLens scores all edges; it takes pairs one by one, so they scale
LONGEST = 16_384

GPT2: dict[str, Any] = {"model_type": "gpt2", "bos_token_id": 0, "eos_token_id": 0}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
    "max_position_embeddings": LONGEST,
}
if IS_SMALL:
    GPT2 |= {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 500}
    LLAMA |= {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4}
    LLAMA |= {"vocab_size": 500}
MANY_HEADS = LLAMA | {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "vocab_size": 2000}
MANY_HEADS |= {"num_attention_heads": 32, "num_key_value_heads": 8}
if IS_SMALL:
    MANY_HEADS |= {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 8}
SHAPES = {"llama32": MANY_HEADS, "gpt2": GPT2, "gpt2long": GPT2 | {"n_positions": 2048}, "llama": LLAMA}


def model_folder(shape: str, folder: Path) -> Path:
    """A saved model of random weights: GPT-2 small's shape (or with more positions), or a grouped-query Llama's.

    Its tokenizer names tokens by their numbers; TransformerLens loads no Llama without one.
    """
    where = folder / shape
    if not where.is_dir():
        settings = dict(SHAPES[shape])
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
        model.save_pretrained(where)
        words = {str(token): token for token in range(model.config.vocab_size)}
        tokenizer = Tokenizer(WordLevel(words, unk_token="0"))
        special = {"bos_token": "1", "eos_token": "2", "pad_token": "0"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(where)
    return where


def stock_model(folder: Path) -> PreTrainedModel:
    """The stock model of a folder, without gradients."""
    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)


def pairs(
    vocab_size: int, shared: int, n_items: int = N_ITEMS, n_tokens: int = N_TOKENS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base and donor ids [item position] with a shared prefix, and correct and wrong answers [item]."""
    generator = torch.Generator().manual_seed(1)
    base, donor = torch.randint(vocab_size, (2, n_items, n_tokens), generator=generator)
    donor[:, :shared] = base[:, :shared]
    answers = torch.randint(vocab_size, (2, n_items), generator=generator)
    return base, donor, answers[0], answers[1]


def sampled_cells(n_layers: int, n_heads: int, n_cells: int = N_CELLS) -> list[tuple[int, int, int]]:
    """Cells (layer, position, head) of the sweep that is too long to run whole elsewhere, evenly over the depth."""
    generator = torch.Generator().manual_seed(2)
    draws = torch.rand(n_cells, 3, generator=generator)
    return [
        (int(place * n_layers / n_cells), int(row[1] * N_TOKENS), int(row[2] * n_heads))
        for place, row in enumerate(draws)
    ]


def long_prompt(vocab_size: int, n_tokens: int) -> torch.Tensor:
    """Ids of one long prompt [1 position]; a 64th of the length where all is small."""
    length = n_tokens // 64 if IS_SMALL else n_tokens
    return torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(3))


def drawn_circuits(n_layers: int, n_heads: int) -> torch.Tensor:
    """Random edges of a sequential model, of ten sizes: [circuit source slot] bool.

    Sources are the input, then by layer heads and MLP; slots by layer queries, keys, values and MLP, then the logits.
    """
    written, read = [0], []
    for layer in range(n_layers):
        written += [2 * layer + 1] * n_heads + [2 * layer + 2]
        read += [2 * layer + 1] * 3 * n_heads + [2 * layer + 2]
    legal = torch.tensor(written)[:, None] < torch.tensor([*read, 2 * n_layers + 1])
    drawn = torch.rand(legal.shape, generator=torch.Generator().manual_seed(4)).masked_fill(~legal, 2.0)
    order = drawn.flatten().argsort()
    found = torch.zeros(len(CIRCUIT_SHARES), legal.numel(), dtype=torch.bool)
    for place, share in enumerate(CIRCUIT_SHARES):
        found[place, order[: max(1, int(share * int(legal.sum())))]] = True
    return found.reshape(-1, *legal.shape)
