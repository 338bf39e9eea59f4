"""Attention inputs whose pattern is known by hand."""

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.promptset import Promptset


def with_pattern(pattern: Tensor, lengths: list[int] | None = None, window: int | None = None) -> AttentionInputs:
    """Inputs of one layer whose attention is `pattern` [item head query key] (causal, rows sum to 1)."""
    items, heads, n_tokens, _ = pattern.shape
    query = torch.eye(n_tokens, dtype=pattern.dtype).expand(items, heads, n_tokens, n_tokens)
    key = torch.log(pattern.clamp(min=1e-30)).transpose(-1, -2)
    found = torch.tensor(lengths or [n_tokens] * items)
    return AttentionInputs(layer=0, query=query, key=key, lengths=found, scale=1.0, window=window)


def uniform(n_tokens: int, items: int = 1, heads: int = 1, **facts) -> AttentionInputs:
    """Causal uniform attention."""
    pattern = torch.ones(n_tokens, n_tokens).tril()
    pattern = (pattern / pattern.sum(dim=-1, keepdim=True)).expand(items, heads, -1, -1)
    return with_pattern(pattern, **facts)


def looking_back(n_tokens: int, targets: list[int]) -> AttentionInputs:
    """One head of one item that looks from each query q at `targets[q]` only."""
    pattern = torch.zeros(1, 1, n_tokens, n_tokens)
    for query, key in enumerate(targets):
        pattern[0, 0, query, key] = 1
    return with_pattern(pattern)


def prompts_of(ids: Tensor, **facts) -> Promptset:
    """Prompts of equal length with the given facts."""
    return Promptset(Batch.of(ids), facts=facts)


def repeated(period: int, copies: int = 2, offset: int = 1, copy: str = "exact", items: int = 1) -> Promptset:
    """Repeated tokens 1 .. period after a first token 0."""
    body = torch.arange(1, period + 1).repeat(copies)
    ids = torch.cat([torch.zeros(offset, dtype=torch.int64), body]).expand(items, -1)
    return prompts_of(ids, period=period, copies=copies, offset=offset, copy=copy, bos_mode="eot_as_bos")


def harmonic(n: int) -> float:
    """H_n = 1 + 1/2 + ... + 1/n."""
    return sum(1 / each for each in range(1, n + 1))
