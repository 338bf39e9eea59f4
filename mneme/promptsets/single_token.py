"""One token said again and again: a control for what depends on places alone."""

from __future__ import annotations

import numpy as np
import torch

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.encoding import begun
from mneme.promptset import Promptset, Vocabulary, promptset


@promptset(needs_tokenizer=False, source="Gu et al. 2024; METHODS 1c")
def single_token(vocabulary: Vocabulary, *, seed: int, n_items: int = 64, n_tokens: int = 64) -> Promptset:
    """Prompts of `n_tokens` tokens: the first token and then one ordinary token over and over, drawn for each prompt.

    Facts: bos_mode, offset. Raises: BadInput for more tokens than the context.
    """
    n_items = whole_number("single_token.n_items", n_items, 1)
    n_tokens = whole_number("single_token.n_tokens", n_tokens, 2, vocabulary.context)
    offset = int(vocabulary.first_id is not None)
    drawn = np.random.default_rng(seed).choice(vocabulary.ordinary_ids.numpy(), size=n_items)
    rows = [begun(vocabulary, [int(token)] * (n_tokens - offset)) for token in drawn]
    texts = None if vocabulary.tokenizer is None else tuple(vocabulary.tokenizer.decode(row) for row in rows)
    batch = Batch.of(torch.tensor(rows, dtype=torch.int64))
    return Promptset(batch, facts={"bos_mode": vocabulary.bos_mode, "offset": offset}, texts=texts)
