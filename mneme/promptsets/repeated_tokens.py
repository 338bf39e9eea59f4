"""Random tokens that repeat, and their two controls: no repetition, and a repetition in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mneme.arguments import number_between, one_of, whole_number
from mneme.batch import Batch
from mneme.encoding import begun
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset

COPIES = ("exact", "fresh", "shuffled")
SHORTEST_PERIOD = 8  # below, the offsets of previous token, duplicate and induction come too close to each other


@promptset(needs_tokenizer=False, source="Olsson et al. 2022; METHODS 1a")
def repeated_tokens(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 64,
    period: int = 50,
    copies: int = 2,
    copy: str = "exact",
    tails: float = 0.05,
) -> Promptset:
    """[first token] + s + s + ..., with s of `period` distinct ordinary ids, drawn anew for each item.

    copy: `exact` repeats s; `fresh` (control) puts other distinct tokens at the same places; `shuffled` (control)
    repeats the tokens of s in another order, none in its old place.
    tails: share of the vocabulary left out at either end where a tokenizer orders it by frequency (merge order).
    Facts: period, copies, copy, offset (index of the first token of s), bos_mode, choices (ids that were drawn from).
    Labels: `copy_2`, where the second copy begins, and `end`, the last token.
    Raises: BadInput for a period under 8, more distinct ids than the vocabulary has, or more tokens than the context.
    """
    place = "repeated_tokens"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    period = whole_number(f"{place}.period", period, SHORTEST_PERIOD)
    copies = whole_number(f"{place}.copies", copies, 2)
    copy = one_of(f"{place}.copy", copy, COPIES)
    ids = _drawn_from(vocabulary, number_between(f"{place}.tails", tails, 0, 0.5))
    _refuse_too_many(vocabulary, len(ids), period, copies, copy)
    rng = np.random.default_rng(seed)
    rows = [begun(vocabulary, _tokens(rng, ids, period, copies, copy)) for _ in range(n_items)]
    offset = len(rows[0]) - period * copies
    facts: dict[str, Any] = {
        "period": period,
        "copies": copies,
        "copy": copy,
        "offset": offset,
        "bos_mode": vocabulary.bos_mode,
        "choices": len(ids),
        "chance": {"copy_accuracy": 1 / len(ids)},
    }
    labels = {"copy_2": offset + period, "end": len(rows[0]) - 1}
    batch = Batch(
        torch.tensor(rows, dtype=torch.int64),
        torch.full((n_items,), len(rows[0]), dtype=torch.int64),
        {name: torch.full((n_items,), position, dtype=torch.int64) for name, position in labels.items()},
    )
    texts = None if vocabulary.tokenizer is None else tuple(vocabulary.tokenizer.decode(row) for row in rows)
    return Promptset(batch, facts=facts, texts=texts)


def _drawn_from(vocabulary: Vocabulary, tails: float) -> NDArray[np.int64]:
    ids = vocabulary.ordinary_ids.numpy()
    cut = int(tails * len(ids)) if vocabulary.tokenizer is not None else 0
    return np.asarray(ids[cut : len(ids) - cut])


def _refuse_too_many(vocabulary: Vocabulary, n_ids: int, period: int, copies: int, copy: str) -> None:
    needed = period * copies if copy == "fresh" else period
    if needed > n_ids:
        raise BadInput(
            f"repeated_tokens needs {needed} distinct ids and the vocabulary offers {n_ids}: lower period or copies"
        )
    length = period * copies + (0 if vocabulary.first_id is None else 1)
    if length > vocabulary.context:
        raise BadInput(
            f"repeated_tokens makes prompts of {length} tokens and the model's context is {vocabulary.context}: "
            "lower period or copies"
        )


def _tokens(rng: np.random.Generator, ids: NDArray[np.int64], period: int, copies: int, copy: str) -> list[int]:
    if copy == "fresh":
        return [int(each) for each in rng.choice(ids, size=period * copies, replace=False)]
    first = rng.choice(ids, size=period, replace=False)
    later = [first if copy == "exact" else first[_cycle(rng, period)] for _ in range(copies - 1)]
    return [int(each) for each in np.concatenate([first, *later])]


def _cycle(rng: np.random.Generator, period: int) -> NDArray[np.int64]:
    """A random permutation that is one cycle, so that no place keeps its token."""
    order = rng.permutation(period)
    cycle = np.empty(period, dtype=np.int64)
    cycle[order] = np.roll(order, 1)
    return cycle
