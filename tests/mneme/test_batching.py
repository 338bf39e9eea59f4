"""Interventions hold the activations of one group of prompts at a time, whatever the number of prompts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_forward, items_per_group, tokens_with_prefix
from mneme.model import LanguageModel
from mneme.patching import patch, patch_heads
from mneme.paths import path_patch
from mneme.readouts import Readout, logit_difference
from tests.architectures import VOCABULARY, tiny

Sweep = Callable[[LanguageModel, Batch, Batch, Readout], Tensor]
SENDERS = [(0, 1), (1, 2)]
SWEEPS: dict[str, Sweep] = {
    "patch_heads": patch_heads,
    "patch_heads_each": lambda lm, base, donor, readout: patch_heads(lm, base, donor, readout, "each"),
    "residual": lambda lm, base, donor, readout: patch(lm, base, donor, readout, "residual", "each"),
    "mlp_out": lambda lm, base, donor, readout: patch(lm, base, donor, readout, "mlp_out"),
    "path_to_logits": lambda lm, base, donor, readout: path_patch(lm, base, donor, readout, SENDERS),
    "path_to_query": lambda lm, base, donor, readout: path_patch(lm, base, donor, readout, SENDERS, [(2, 0, "q")]),
    "path_beside_mlps": lambda lm, base, donor, readout: path_patch(
        lm, base, donor, readout, SENDERS, freeze_mlps=True
    ),
}


@cache
def model() -> LanguageModel:
    return LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu")


def asked(n_items: int) -> tuple[Batch, Batch, Readout]:
    """Pairs of three lengths, the longest first, so that later groups are shorter than the whole."""
    ids = torch.randint(3, VOCABULARY, (2, n_items, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 8, 8, 7]).repeat_interleave(-(-n_items // 4))[:n_items]
    answers = torch.arange(n_items)
    return Batch(ids[0], lengths), Batch(ids[1], lengths), logit_difference(answers % 5 + 3, answers % 7 + 9)


def in_groups_of(size: int, sweep: Sweep, n_items: int) -> Tensor:
    """What a sweep finds with `size` prompts in a group."""
    lm = model()
    lm.items_per_forward.clear()
    lm.items_per_forward.update(dict.fromkeys(range(1, 10), size))
    try:
        return sweep(lm, *asked(n_items))
    finally:
        lm.items_per_forward.clear()


def most_held(size: int, sweep: Sweep, n_items: int) -> int:
    """How many numbers the tensors of a sweep hold at most when the last layer runs."""
    peak = 0

    def watch(*_: object) -> None:
        nonlocal peak
        peak = max(peak, live_elements())

    hook = model().attention_modules[-1].register_forward_pre_hook(watch)
    gc.collect()
    gc.freeze()  # what is there before is not counted
    try:
        in_groups_of(size, sweep, n_items)
    finally:
        gc.unfreeze()
        hook.remove()
    return peak


def live_elements() -> int:
    """Numbers in all tensors that Python holds, each storage once."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is Tensor]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() // 8 for each in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("name", sorted(SWEEPS))
def test_groups_of_two_find_what_one_group_of_all_finds(name: str) -> None:
    small = in_groups_of(2, SWEEPS[name], 8)
    large = in_groups_of(8, SWEEPS[name], 8)
    assert torch.allclose(small, large, rtol=0, atol=1e-12, equal_nan=True)
    assert bool(small.isfinite().any())


@pytest.mark.parametrize("name", ["residual", "mlp_out", "path_to_logits", "path_to_query", "path_beside_mlps"])
def test_what_is_held_does_not_grow_with_the_pairs(name: str) -> None:
    few, many = most_held(2, SWEEPS[name], 2), most_held(2, SWEEPS[name], 8)
    assert few > 0
    assert many < 1.5 * few  # the prompts and the readouts themselves do grow
    assert most_held(8, SWEEPS[name], 8) > 2 * few


def test_a_group_is_as_large_as_what_is_kept_of_it_allows() -> None:
    lm = model()
    assert items_per_group(lm, 8, 6) == (1 << 27) // (6 * 3 * 8 * 16)
    assert items_per_group(lm, 1 << 30, 6) == 1


def test_keys_and_values_of_a_prefix_count_for_their_share() -> None:
    lm = model()
    assert tokens_with_prefix(lm, 6, 0) == 6
    assert tokens_with_prefix(lm, 6, 12) == 8  # keys and values: 2 of 12 tensors of the residual's width
    assert items_per_forward(lm, tokens_with_prefix(lm, 6, 12)) == items_per_forward(lm, 8)


def test_no_slice_is_longer_than_what_is_asked() -> None:
    lm, slices = model(), []

    def run(some: slice) -> Tensor:
        slices.append((some.start, some.stop))
        return torch.zeros(some.stop - some.start)

    assert len(in_batches(lm, 7, 8, run, at_most=3)) == 7
    assert slices == [(0, 3), (3, 6), (6, 7)]
