"""Function tokens: the few most frequent tokens of a corpus, and the classes of a prompt's tokens that follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.errors import BadInput, NotApplicable
from mneme.promptset import Promptset

LEAST_TOKENS = 100_000  # below, the order of the frequent tokens is chance
FUNCTION, CONTENT = "function", "content"


def function_set(counts: Sequence[tuple[int, int]], coverage: float) -> frozenset[int]:
    """The smallest set of most frequent tokens that makes up `coverage` of a corpus.

    counts: (token id, how often) of every token type. Ties go to the lower id.
    Source: METHODS 19g (coverage .40)
    """
    wanted = coverage * sum(count for _, count in counts)
    chosen: list[int] = []
    covered = 0
    for token, count in sorted(counts, key=lambda pair: (-pair[1], pair[0])):
        if covered >= wanted:
            break
        chosen.append(token)
        covered += count
    return frozenset(chosen)


def corpus_counts(prompts: Promptset) -> list[tuple[int, int]]:
    """How often each token stands in the corpus that prompts are drawn from, the first token of a text left out.

    The fact `frequencies` of the promptset says so; prompts without it are their own corpus.
    Raises: NotApplicable for a corpus of fewer than 100,000 tokens.
    """
    given = prompts.facts.get("frequencies")
    if given is not None:
        counts = [(int(token), int(count)) for token, count in given]
    else:
        inside = prompts.clean.padding.bool()
        inside[:, : int(prompts.facts.get("offset", 0))] = False
        tokens, numbers = torch.unique(prompts.clean.ids[inside], return_counts=True)
        counts = list(zip(tokens.tolist(), numbers.tolist(), strict=True))
    total = sum(count for _, count in counts)
    if total < LEAST_TOKENS:
        raise NotApplicable(
            f"function tokens are told by a corpus of {LEAST_TOKENS} tokens at least, and this one has {total}: "
            "use a promptset that counts its corpus, such as told_scenes with corpus_tokens"
        )
    return counts


def is_function_token(prompts: Promptset, coverage: float) -> Tensor:
    """Whether each token of the prompts is a function token: [item position] bool; False at padding.

    The first token that stands in front of a text is neither: it is False here and left out by `is_text`.
    Raises: BadInput for a coverage outside (0, 1); NotApplicable for too small a corpus.
    """
    if isinstance(coverage, bool) or not isinstance(coverage, float) or not 0 < coverage < 1:
        raise BadInput(f"coverage is {coverage!r}: give a share above 0 and below 1")
    chosen = torch.tensor(sorted(function_set(corpus_counts(prompts), coverage)), dtype=torch.int64)
    return torch.isin(prompts.clean.ids.cpu(), chosen) & is_text(prompts)


def is_text(prompts: Promptset) -> Tensor:
    """Which positions hold a token of the text, not padding and not the first token in front: [item position] bool."""
    inside = prompts.clean.padding.bool().cpu()
    inside[:, : int(prompts.facts.get("offset", 0))] = False
    return inside


def matched(first: Tensor, second: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """As many places of each of two classes [item position] bool: of the larger one those with the lowest `drawn`."""
    n_kept = torch.minimum(first.sum(dim=1), second.sum(dim=1))[:, None]

    def cut(places: Tensor) -> Tensor:
        order = drawn.masked_fill(~places, 2.0).argsort(dim=1).argsort(dim=1)
        return places & (order < n_kept)

    return cut(first), cut(second)
