"""From text to token ids the way every generator does it: no special tokens but one first token, never two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.promptset import Tokenizer, Vocabulary


def tokenizer_of(vocabulary: Vocabulary, who: str) -> Tokenizer:
    """The model's tokenizer; raises NotApplicable when the model has none."""
    if vocabulary.tokenizer is None:
        raise NotApplicable(f"{who} needs text, and this model has no tokenizer")
    return vocabulary.tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of the text itself; special tokens are only those written out in it."""
    quiet: Any = tokenizer  # transformers would log every text longer than the context, which callers cut or refuse
    return list(quiet(text, add_special_tokens=False, verbose=False).input_ids)


def begun(vocabulary: Vocabulary, ids: Sequence[int]) -> list[int]:
    """The ids with the vocabulary's first token in front, unless they start with it already (METHODS 0)."""
    if vocabulary.first_id is None or (len(ids) > 0 and ids[0] == vocabulary.first_id):
        return list(ids)
    return [vocabulary.first_id, *ids]


def padded(rows: Sequence[Sequence[int]], labels: Mapping[str, Tensor] | None = None) -> Batch:
    """A right-padded batch of rows of ids (padding repeats id 0, which no computation reads)."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.int64)
    for item, row in enumerate(rows):
        ids[item, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return Batch(ids, lengths, dict(labels or {}))


def answer_ids(rows: Sequence[Sequence[int]]) -> Tensor:
    """[item answer] int64, -1 where an item has fewer answers than another."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[-1] * (longest - len(row))] for row in rows], dtype=torch.int64)
