"""A concept to read off a model: whether the last token was there before."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.encoding import begun
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset

_NEAREST = 2  # tokens back: closer, looking at the token before would do


@promptset(needs_tokenizer=False, source="METHODS 17, 1a")
def seen_before(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 400, n_tokens: int = 32, n_keys: int = 50
) -> Promptset:
    """[first token] + random distinct ordinary tokens; in every other prompt the last one stands there before, once.

    n_tokens: tokens after the first one, the same in all prompts. n_keys: how many tokens are ever the last one; each
    is so as often seen before as not, so that the last token alone tells nothing.
    Conditions: concept, 1 where the last token was seen; concept_key, its number; distance, how many tokens back it was
    seen, at least 2, NaN where it was not. Clusters: the last token, so that none is on both sides of a fold.
    Label: end. No answers. Facts: n_tokens, n_keys, offset, bos_mode.
    Raises: BadInput for more tokens than the context or the vocabulary has.
    """
    place = "seen_before"
    n_items = whole_number(f"{place}.n_items", n_items, 2)
    n_tokens = whole_number(f"{place}.n_tokens", n_tokens, 4)
    n_keys = whole_number(f"{place}.n_keys", n_keys, 2)
    ids = vocabulary.ordinary_ids.numpy()
    offset = int(vocabulary.first_id is not None)
    if max(n_tokens + 1, n_keys) > len(ids) or n_tokens + offset > vocabulary.context:
        raise BadInput(
            f"{place}.n_tokens is {n_tokens} and n_keys {n_keys}: give fewer than the {len(ids)} tokens of the "
            f"vocabulary and the {vocabulary.context} of the context"
        )
    rng = np.random.default_rng(seed)
    keys = rng.choice(ids, size=n_keys, replace=False)
    number, concept = np.arange(n_items) // 2 % n_keys, np.arange(n_items) % 2
    drawn = [_tokens(rng, ids, int(keys[each]), n_tokens) for each in number]
    distances = np.where(concept == 1, rng.integers(_NEAREST, n_tokens, size=n_items), 0)
    rows = []
    for tokens, distance in zip(drawn, distances, strict=True):
        if distance:
            tokens[-1 - distance] = tokens[-1]
        rows.append(begun(vocabulary, tokens))
    return _assembled(vocabulary, rows, (concept, number, distances), {"n_tokens": n_tokens, "n_keys": n_keys})


def _tokens(rng: np.random.Generator, ids: NDArray[np.int64], key: int, n_tokens: int) -> list[int]:
    """Distinct tokens, the key last."""
    others = rng.choice(ids[ids != key], size=n_tokens - 1, replace=False)
    return [*others.tolist(), key]


def _assembled(
    vocabulary: Vocabulary, rows: list[list[int]], drawn: tuple[NDArray[np.int64], ...], facts: dict[str, int]
) -> Promptset:
    concept, number, distances = (torch.from_numpy(each) for each in drawn)
    ids = torch.tensor(rows, dtype=torch.int64)
    lengths = torch.full((len(rows),), ids.shape[1], dtype=torch.int64)
    texts = None if vocabulary.tokenizer is None else tuple(vocabulary.tokenizer.decode(row) for row in rows)
    return Promptset(
        Batch(ids, lengths, {"end": lengths - 1}),
        clusters=number,
        facts={**facts, "bos_mode": vocabulary.bos_mode, "offset": int(vocabulary.first_id is not None)},
        texts=texts,
        conditions={
            "concept": concept.double(),
            "concept_key": number.double(),
            "distance": distances.double().masked_fill(concept == 0, torch.nan),
        },
    )
