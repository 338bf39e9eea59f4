"""The loss on a text, by whether a token and the one after it are function or content tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.function_tokens import CONTENT, FUNCTION, is_function_token, is_text
from mneme.probe import probe
from mneme.promptset import Promptset
from mneme.scores import TokenScores

_CLASSES = (FUNCTION, CONTENT)


@probe(
    level="behavior",
    unit="nats",
    low=0.0,
    high=None,
    site="token_scores",
    source="Memory Retrieval and Consolidation in LLMs through Function Tokens, 2025; METHODS 19g",
)
def function_token_loss(
    scores: TokenScores,
    prompts: Promptset,
    *,
    current: str = FUNCTION,
    following: str = CONTENT,
    coverage: float = 0.4,
    shuffle_seed: int | None = None,
) -> Tensor:
    """Mean loss of the next token where this token is of class `current` and the next one of class `following`.

    Function tokens are the smallest set of most frequent tokens that makes up `coverage` of the corpus, the others are
    content; the first token in front of a text is neither.
    Shape:  [item]
    Unit:   nats per token
    Range:  0 .. ; NaN = no such pair in the prompt
    shuffle_seed: the control: the classes of a prompt's tokens are dealt out anew among its places, so that all four
            losses are equal but for chance
    Raises: BadInput for an unknown class or a coverage outside 0 .. 1; NotApplicable where the prompts' corpus, counted
            in the fact `frequencies` or else the prompts themselves, has fewer than 100,000 tokens.
    Source: METHODS 19g (loss split by current and next)
    """
    current = one_of("function_token_loss.current", current, _CLASSES)
    following = one_of("function_token_loss.following", following, _CLASSES)
    is_function, inside = is_function_token(prompts, coverage), is_text(prompts)
    if shuffle_seed is not None:
        seed = whole_number("function_token_loss.shuffle_seed", shuffle_seed, 0)
        is_function = _dealt_out(is_function, inside, prompts.clean.ids, seed)
    here = inside & (is_function if current == FUNCTION else ~is_function)
    there = inside & (is_function if following == FUNCTION else ~is_function)
    asked = here[:, :-1] & there[:, 1:]
    losses = -scores.log_prob.cpu()[:, :-1]
    return losses.masked_fill(~asked, torch.nan).nanmean(dim=1)


def _dealt_out(is_function: Tensor, inside: Tensor, ids: Tensor, seed: int) -> Tensor:
    """The classes of each prompt in another order, which depends on the seed and the prompt's own tokens alone."""
    dealt = is_function.clone()
    for item in range(len(ids)):
        row = inside[item]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + int((ids[item] * row).sum()))
        given = is_function[item, row]
        dealt[item, row] = given[torch.randperm(len(given), generator=generator)]
    return dealt
