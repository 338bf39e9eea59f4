"""Copy and paste by attention: whether a head's top attention lies on the token that the model says next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mneme.attention import AttentionInputs

TIED = -1  # no key is the top one, or no token is said
MOST_PROBABILITIES = 1 << 20  # in memory at once: 4 MiB in float32
_WORD = re.compile(r"\w+")


def top_keys(inputs: AttentionInputs, rows: Tensor) -> Tensor:
    """The key that each head attends to most, in one query row a step: rows [item step] -> [item head step] int64.

    -1 where two keys tie, which earns no credit (METHODS 0). All heads and as many steps as fit go through one
    operation; more than one row a head is in memory only within MOST_PROBABILITIES.
    """
    size = max(1, MOST_PROBABILITIES // (len(inputs.query) * inputs.n_heads * inputs.n_keys))
    found = []
    for some in torch.split(rows, size, dim=1):
        probabilities = inputs.probabilities(some)
        best, key = probabilities.max(dim=-1)
        is_tied = (probabilities == best[..., None]).sum(dim=-1) > 1
        found.append(key.masked_fill(is_tied, TIED))
    return torch.cat(found, dim=-1)


def copied_share(
    top: Tensor, ids: Tensor, said: Tensor | None, span: tuple[Tensor, Tensor], *, shift: int = 0, repeats: bool = False
) -> Tensor:
    """How much of a span of the prompt each head copies: [item layer head] float32.

    At a step a head hits place p of the span where its top key is p, or one of the `shift` positions after it, and the
    token at p is the one said at that step. The score is the share of places hit at least once; with `repeats` the
    number of steps with a hit over the length of the span, which exceeds 1 where tokens are said again.

    Shape:  top [item layer head step], ids [item position], said [item step] (-1 = no step), span = first and last
            place, each [item]. said None = any token will do: the span alone decides
    Source: Wu et al. 2024; METHODS 2a (the set of places is primary, the count is the public code's)
    """
    first, last = (edge[:, None, None, None] for edge in span)
    places = torch.arange(int((span[1] - span[0]).max()) + 1, device=top.device)
    hit = torch.zeros(*top.shape, len(places), dtype=torch.bool, device=top.device)
    for late in range(shift + 1):
        place = top - late
        is_hit = (top >= 0) & (place >= first) & (place <= last)
        if said is not None:
            flat = place.clamp(0, ids.shape[1] - 1).reshape(len(ids), -1)
            token = ids.gather(1, flat).reshape(top.shape)
            is_hit &= (token == said[:, None, None]) & (said >= 0)[:, None, None]
        hit |= is_hit[..., None] & ((place - first)[..., None] == places)
    count = hit.any(dim=-1).sum(dim=-1) if repeats else hit.any(dim=-2).sum(dim=-1)
    return count.float() / (last - first + 1)[..., 0]


def unigram_recall(response: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """ROUGE-1 recall, 0 .. 1: the share of the reference's words that the response has too, each as often.

    Departs from METHODS 2a: words are compared as they stand, not stemmed.
    """
    shared = Counter(response) & Counter(reference)
    return sum(shared.values()) / len(reference)


def words_of(text: str) -> list[str]:
    """The words of a text in small letters."""
    return _WORD.findall(text.lower())
