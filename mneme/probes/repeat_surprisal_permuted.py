"""What is left of the memory of a list when heads can no longer find what they look for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.interception import AttentionCall, handled
from mneme.list_surprisal import LISTS, mean_bits, noun_bits, noun_places, percent_of_first
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.scoring import token_scores


@probe(
    level="behavior",
    unit="percent of the first surprisal",
    low=0.0,
    high=None,
    group="median",
    source="Armeni, Honey, Linzen 2022; METHODS 9",
)
def repeat_surprisal_permuted(
    lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent, permutation_seed: int = 0
) -> Tensor:
    """`repeat_surprisal` of the model with the numbers of each head's queries in another order, keys as they are.

    Queries and keys keep their norms, and values and MLPs are untouched: only what heads look for is lost. It is the
    control for a memory that rests on attention.
    Shape:  [item], one per list
    Unit:   percent of the first surprisal, both lists read by the same changed model; the group value is the median
    Range:  0 .. ; about 100 where the memory rests on what heads look for. NaN where list 1 surprises by less than one
            bit a noun
    permutation_seed: which order; it is another one for each layer and head, and the same for all prompts
    Raises: NotApplicable without the labels list1_0, list2_0, ..., and for models outside the attention interface
    Source: METHODS 9 (weights with permuted attention Q/K); differs from it in: queries are permuted where they enter
            attention, after any rotation by position, not in the weights
    """
    who = "repeat_surprisal_permuted"
    lm.require_attention()
    places = [noun_places(prompts, name, who) for name in LISTS]
    seed = whole_number(f"{who}.permutation_seed", permutation_seed, 0)

    def permuted(call: AttentionCall) -> Tensor:
        n_heads, width = call.query.shape[1], call.query.shape[3]
        order = _orders(seed, call.layer, n_heads, width).to(call.query.device)
        query = call.query.gather(3, order[None, :, None].expand(call.query.shape))
        return replace(call, query=query).compute()

    with handled(lm.attention_modules, permuted):
        log_prob = token_scores(lm, prompts.clean, progress).log_prob.cpu()
    first, second = (mean_bits(noun_bits(log_prob, each)) for each in places)
    return percent_of_first(second, first)


def _orders(seed: int, layer: int, n_heads: int, width: int) -> Tensor:
    """An order of the numbers of a query for each head: [head width] int64."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + layer)
    return torch.stack([torch.randperm(width, generator=generator) for _ in range(n_heads)])
