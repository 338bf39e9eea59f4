"""A planted copier that cannot find what it looks for forgets the list; the same as permuting the weights."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.tracing import trace_sites
from tests.architectures import tiny
from tests.planted import BLOCK, copy_model

PERMUTED, RATIO, BITS = (
    probes.get(name) for name in ("repeat_surprisal_permuted", "repeat_surprisal", "list_surprisal")
)
N_LISTS, N_NOUNS = 5, 6


@cache
def planted() -> LanguageModel:
    return LanguageModel(copy_model(), "planted", None, "cpu")


def read_twice(vocab_size: int = BLOCK, lists: tuple[str, ...] = ("list1", "list2")) -> Promptset:
    """Nouns without separators behind one token, and the same again."""
    generator = torch.Generator().manual_seed(0)
    nouns = torch.stack([torch.randperm(vocab_size - 1, generator=generator)[:N_NOUNS] for _ in range(N_LISTS)])
    ids = torch.cat([torch.full((N_LISTS, 1), vocab_size - 1), nouns, nouns], dim=1)
    starts = {"list1": 1, "list2": 1 + N_NOUNS}
    labels = {
        f"{name}_{number}": torch.full((N_LISTS,), starts[name] + number) for name in lists for number in range(N_NOUNS)
    }
    return Promptset(Batch(ids, torch.full((N_LISTS,), ids.shape[1]), labels))


def values(lm: LanguageModel, prompts: Promptset, **parameters: int) -> Tensor:
    found: Tensor = measure(PERMUTED, parameters, prompts, lm=lm)["values"]
    return found


def test_a_copier_whose_queries_are_permuted_forgets_what_it_copied() -> None:
    prompts = read_twice()
    assert float(measure(RATIO, {}, prompts, lm=planted())["values"].max()) < 0.1
    assert float(values(planted(), prompts).min()) > 20


def test_it_is_the_model_whose_query_weights_are_permuted() -> None:
    prompts, seed = read_twice(39), 3
    found = values(LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu"), prompts, permutation_seed=seed)
    lm = LanguageModel(tiny("gpt2", torch.float64), "by hand", None, "cpu")
    for layer, block in enumerate(lm.hf.transformer.h):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + layer)
        for head in range(lm.n_heads):
            order = torch.randperm(lm.head_width, generator=generator) + head * lm.head_width
            here = slice(head * lm.head_width, (head + 1) * lm.head_width)
            for weights in (block.attn.c_attn.weight.data.T, block.attn.c_attn.bias.data):
                weights[here] = weights[order].clone()
    torch.testing.assert_close(found, measure(RATIO, {}, prompts, lm=lm)["values"])
    unchanged = measure(RATIO, {}, prompts, lm=LanguageModel(tiny("gpt2", torch.float64), "", None, "cpu"))["values"]
    assert bool((found != unchanged).all())


def test_another_seed_is_another_order_and_the_model_is_left_as_it_was() -> None:
    lm, prompts = LanguageModel(tiny("llama"), "llama", None, "cpu"), read_twice(39)
    before = measure(RATIO, {}, prompts, lm=lm)["values"]
    assert bool((values(lm, prompts) != values(lm, prompts, permutation_seed=1)).any())
    assert torch.equal(measure(RATIO, {}, prompts, lm=lm)["values"], before)


def test_the_surprisal_of_one_list_needs_no_other_one() -> None:
    whole, second = read_twice(), read_twice(lists=("list2",))
    trace = trace_sites(planted(), whole, ["token_scores"])["token_scores"]
    first_bits = measure(BITS, {"which": "list1"}, whole, trace=trace)["values"]
    second_bits = measure(BITS, {}, second, trace=trace)["values"]
    torch.testing.assert_close(measure(RATIO, {}, whole, trace=trace)["values"], 100 * second_bits / first_bits)
    assert float(first_bits.min()) > 5
    assert float(second_bits.max()) < 0.1
    with pytest.raises(NotApplicable, match="does not name those of list1"):
        measure(BITS, {"which": "list1"}, second, trace=trace)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(BadInput, match=r"permutation_seed is -1"):
        values(planted(), read_twice(), permutation_seed=-1)
    with pytest.raises(BadInput, match=r"list_surprisal\.which is 'list3': choose one of list1, list2"):
        measure(BITS, {"which": "list3"}, read_twice(), lm=planted())
    with pytest.raises(NotApplicable, match="does not name those of list1"):
        values(planted(), read_twice(lists=("list2",)))
