"""A bigram language model as an ordinary Hugging Face model: it knows the last token and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput

from mneme.errors import BadInput


class BigramConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of a `BigramForCausalLM`; `context` is the longest prompt it is meant for, not a limit of the table."""

    model_type = "mneme-bigram"
    attribute_map = {  # noqa: RUF012  as transformers declares it
        "max_position_embeddings": "context",
        "hidden_size": "vocab_size",
    }

    vocab_size: int = 50257
    num_hidden_layers: int = 1  # the table
    context: int = 512
    bos_token_id: int | None = None


class BigramModel(PreTrainedModel):  # type: ignore[misc]
    """A table: ids [item position] -> log P(next | last) of every next token [item position vocab]."""

    config: BigramConfig
    config_class = BigramConfig
    base_model_prefix = "bigram"

    def __init__(self, config: BigramConfig) -> None:
        super().__init__(config)
        self.log_probabilities = nn.Embedding(config.vocab_size, config.vocab_size)
        self.post_init()

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutputWithPast:
        """The row of each token; what else a caller passes (masks, caches) has no bearing on it."""
        return BaseModelOutputWithPast(last_hidden_state=self.log_probabilities(input_ids))


class BigramForCausalLM(PreTrainedModel):  # type: ignore[misc]
    """A bigram language model: its logits are log-probabilities already, so its head does nothing.

    Shape: input_ids [item position] -> logits [item position vocab].
    """

    config: BigramConfig
    config_class = BigramConfig
    base_model_prefix = "bigram"

    def __init__(self, config: BigramConfig) -> None:
        super().__init__(config)
        self.bigram = BigramModel(config)
        self.head = nn.Identity()
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def forward(self, input_ids: Tensor, **options: Any) -> CausalLMOutput:
        """Log-probabilities of the next token at every position, as logits."""
        return CausalLMOutput(logits=self.head(self.bigram(input_ids, **options).last_hidden_state))


def count_pairs(rows: Iterable[Sequence[int]], vocab_size: int) -> NDArray[np.float64]:
    """How often each token follows each other one within a row: [last next]."""
    counts = np.zeros((vocab_size, vocab_size))
    for row in rows:
        np.add.at(counts, (np.asarray(row[:-1], dtype=np.int64), np.asarray(row[1:], dtype=np.int64)), 1.0)
    return counts


def bigram_model(
    counts: NDArray[np.float64], smoothing: float, context: int, bos_token_id: int | None = None
) -> BigramForCausalLM:
    """The model of counted pairs [last next].

    P(next | last) = (n(last, next) + smoothing x P(next)) / (n(last) + smoothing), P(next) = (n(next) + 1) / (n + V):
    where little was counted it falls back on how frequent a token is, and no probability is 0.
    Raises: BadInput when the counts are not square or the smoothing is not above 0.
    Source: MacKay & Peto 1995 (Dirichlet smoothing)
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise BadInput(f"bigram_model: the counts must be [last next] over one vocabulary, not {counts.shape}")
    if not smoothing > 0:
        raise BadInput(f"bigram_model.smoothing is {smoothing!r}: give a number above 0")
    n_next = counts.sum(axis=0)
    prior = (n_next + 1.0) / (n_next.sum() + len(counts))
    table = (counts + smoothing * prior) / (counts.sum(axis=1, keepdims=True) + smoothing)
    config = BigramConfig(vocab_size=len(counts), context=context, bos_token_id=bos_token_id, eos_token_id=bos_token_id)
    model = BigramForCausalLM(config)
    with torch.no_grad():
        model.bigram.log_probabilities.weight.copy_(torch.from_numpy(np.log(table)))
    return model


AutoConfig.register(BigramConfig.model_type, BigramConfig, exist_ok=True)
AutoModelForCausalLM.register(BigramConfig, BigramForCausalLM, exist_ok=True)
