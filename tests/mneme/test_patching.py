"""Head patching equals a full forward per cell, and costs only what a patch can alter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import patch, patch_head_sets, patch_heads
from mneme.paths import received
from mneme.readouts import log_probability, logit_difference
from tests import references
from tests.architectures import INSIDE, VOCABULARY, tiny

READOUT = logit_difference(torch.arange(3) + 3, torch.arange(3) + 9)


@cache
def model(name: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    return LanguageModel(tiny(name, dtype), name, None, "cpu")


def pair(prefix: int = 0, *, padded: bool = False) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (2, 3, 9), generator=generator)
    ids[1, :, :prefix] = ids[0, :, :prefix]
    lengths = torch.tensor([9, 7, 8]) if padded else torch.full((3,), 9)
    labels = {"middle": torch.tensor([4, 5, 6]), "end": lengths - 1}
    return Batch(ids[0], lengths, labels), Batch(ids[1], lengths, labels)


def slow(lm: LanguageModel, base: Batch, donor: Batch, position: int | None, layer: int, head: int) -> Tensor:
    replaced = references.all_z(lm, donor)

    def change(here: int, z: Tensor) -> Tensor:
        where = slice(None) if position is None else slice(position, position + 1)
        if here == layer:
            z[:, where, head] = replaced[layer][:, where, head]
        return z

    with references.changed_heads(lm, change):
        return references.read(READOUT, references.stock_logits(lm, base), base)


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("padded", "prefix"), [(False, 0), (True, 5)])
@pytest.mark.parametrize("name", sorted(INSIDE))
def test_patching_every_head_equals_the_slow_reference(name: str, padded: bool, prefix: int) -> None:
    lm, (base, donor) = model(name), pair(prefix, padded=padded)
    expected = references.each_head(lm, base, READOUT, references.all_z(lm, donor))
    assert close(patch_heads(lm, base, donor, READOUT), expected)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2", "mistral", "deepseek_v3", "gpt_neox"])
def test_patching_each_position_equals_the_slow_reference(name: str, padded: bool) -> None:
    lm, (base, donor) = model(name), pair(4, padded=padded)
    found = patch_heads(lm, base, donor, READOUT, "each")
    assert found.shape == (3, lm.n_layers, 4, 9)
    for layer, head, position in [(0, 1, 4), (0, 3, 6), (1, 2, 5), (1, 0, 8), (2, 1, 8), (2, 2, 6), (1, 1, 0)]:
        expected = slow(lm, base, donor, position, layer, head)
        real = position < base.lengths
        assert close(found[real, layer, head, position], expected[real])
        assert bool(found[~real, layer, head, position].isnan().all())


def test_gpt2_in_float64_agrees_to_ten_digits() -> None:
    lm, (base, donor) = model("gpt2"), pair(3)
    expected = references.each_head(lm, base, READOUT, references.all_z(lm, donor))
    assert float((patch_heads(lm, base, donor, READOUT) - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
    found = patch_heads(lm, base, donor, READOUT, "each")[:, 1, 2, 5]
    assert float((found - slow(lm, base, donor, 5, 1, 2)).abs().max()) <= 1e-10


def test_labels_patch_each_prompt_at_its_own_position() -> None:
    lm, (base, donor) = model("llama"), pair(2, padded=True)
    each = patch_heads(lm, base, donor, READOUT, "each")
    found = patch_heads(lm, base, donor, READOUT, ["middle", "end"])
    for item in range(3):
        for column, label in enumerate(("middle", "end")):
            place = int(base.labels[label][item])
            assert torch.allclose(found[item, :, :, column], each[item, :, :, place], atol=1e-12)


def test_patching_with_itself_is_exactly_the_unpatched_readout() -> None:
    lm, (base, _) = model("gpt2"), pair()
    unpatched = patch_head_sets(lm, base, base, READOUT, [[]])
    assert torch.equal(patch_heads(lm, base, base, READOUT), unpatched[:, :, None].expand(-1, 3, 4))
    assert torch.equal(patch_heads(lm, base, base, READOUT, "each"), unpatched[:, :, None, None].expand(-1, 3, 4, 9))


def test_positions_before_the_first_difference_are_neither_run_nor_changed() -> None:
    lm, (base, donor) = model("gpt2"), pair(6)
    lm.items_per_forward[9], lm.items_per_forward[3] = 1, 1
    before = lm.forwards
    found = patch_heads(lm, base, donor, READOUT, "each")
    cells = 3 * 3 * 4 * 3  # items, layers, heads, positions from the sixth on
    assert lm.forwards - before <= 2 * cells + 2
    unpatched = patch_head_sets(lm, base, base, READOUT, [[]])
    assert torch.equal(found[..., :6], unpatched[:, :, None, None].expand(-1, 3, 4, 6))
    del lm.items_per_forward[9], lm.items_per_forward[3]


def test_a_layer_that_is_patched_at_one_position_runs_its_mlp_there_only() -> None:
    lm, (base, donor) = model("gpt2"), pair()
    tokens = 0

    def count(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal tokens
        tokens += args[0][..., 0].numel()

    hook = lm.hf.transformer.h[0].mlp.register_forward_pre_hook(count)
    patch_heads(lm, base, donor, READOUT, "each")
    hook.remove()
    items, positions, heads = 3, 9, 4
    assert 2 * items * positions < tokens <= (2 + heads) * items * positions  # base, donor, then one token a cell


def test_sets_of_heads_are_patched_together() -> None:
    lm, (base, donor) = model("qwen2"), pair(3)
    heads = [(0, 1), (1, 3), (2, 0)]
    replaced = references.all_z(lm, donor)

    def change(layer: int, z: Tensor) -> Tensor:
        for _, head in [each for each in heads if each[0] == layer]:
            z[:, :, head] = replaced[layer][:, :, head]
        return z

    with references.changed_heads(lm, change):
        expected = references.read(READOUT, references.stock_logits(lm, base), base)
    assert close(patch_head_sets(lm, base, donor, READOUT, [heads])[:, 0], expected)


def test_a_readout_before_the_change_keeps_its_value() -> None:
    lm, (base, donor) = model("llama"), pair(5)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[:, [1, 3]] = True
    readout = log_probability(base, mask)
    expected = references.read(readout, references.stock_logits(lm, base), base)
    assert close(patch_heads(lm, base, donor, readout)[:, 1, 2], expected)


def test_a_sweep_that_runs_out_of_memory_goes_on_with_half_and_gives_the_same_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lm, (base, donor) = LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu"), pair()
    expected = patch_heads(lm, base, donor, READOUT)
    sizes: list[int] = []

    def hungry(logits: Tensor, items: Tensor, positions: Tensor) -> Tensor:
        sizes.append(len(logits))
        if len(logits) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return READOUT.value(logits, items, positions)

    found = patch_heads(lm, base, donor, replace(READOUT, value=hungry))
    assert close(found, expected)
    assert max(sizes) > 4 >= sizes[-1]
    assert "out of memory" in caplog.text
    assert "going on with half" in caplog.text
    assert 1 <= min(lm.items_per_forward.values()) <= 4


def test_a_head_that_does_not_exist_is_refused_in_sets() -> None:
    lm, (base, donor) = model("gpt2"), pair()
    with pytest.raises(BadInput, match=r"head \(3, 0\) does not exist: gpt2 has layers 0..2 and heads 0..3"):
        patch_head_sets(lm, base, donor, READOUT, [[(0, 1), (3, 0)]])


def test_pairs_that_do_not_align_are_refused() -> None:
    lm, (base, donor) = model("gpt2"), pair()
    with pytest.raises(BadInput, match="must align token by token"):
        patch_heads(lm, base, Batch.of(donor.ids[:, :8]), READOUT)
    with pytest.raises(BadInput, match="must align token by token"):
        patch_heads(lm, base, Batch(donor.ids, torch.tensor([9, 9, 8])), READOUT)
    with pytest.raises(BadInput, match="label 'start' is unknown: the prompts have middle, end"):
        patch_heads(lm, base, donor, READOUT, ["start"])
    with pytest.raises(NotApplicable, match="only behavior probes apply"):
        patch_heads(model("falcon", torch.float32), base, donor, READOUT)


@pytest.mark.parametrize(("padded", "prefix"), [(False, 0), (True, 5)])
@pytest.mark.parametrize("name", sorted(INSIDE))
def test_patching_residuals_and_mlps_equals_the_slow_reference(name: str, padded: bool, prefix: int) -> None:
    lm, (base, donor) = model(name), pair(prefix, padded=padded)
    assert lm.structure is not None
    each = {site: patch(lm, base, donor, READOUT, site, "each") for site in ("residual", "mlp_out")}
    every = {site: patch(lm, base, donor, READOUT, site) for site in ("residual", "mlp_out")}
    for layer in (0, 2):
        part = lm.structure.parts[layer]
        assert part.mlp_write is not None
        for site, module in (("residual", part.layer), ("mlp_out", part.mlp_write)):
            for position in (None, 6):
                expected = slow_layer(lm, base, donor, module, position, is_input=site == "residual")
                found = every[site][:, layer] if position is None else each[site][:, layer, position]
                assert close(found, expected)


def slow_layer(
    lm: LanguageModel, base: Batch, donor: Batch, module: nn.Module, position: int | None, *, is_input: bool
) -> Tensor:
    """What a module takes in, or gives out, replaced by that of the donor run."""
    held: list[Tensor] = []
    where = slice(None) if position is None else slice(position, position + 1)

    def swap(states: Tensor) -> Tensor:
        shaped = states.reshape(3, 9, -1).clone()
        if held:
            shaped[:, where] = held[0][:, where]
        else:
            held.append(shaped)
        return shaped.reshape(states.shape)

    def pre_hook(_: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> object:
        if args:
            return (swap(args[0]), *args[1:]), options
        return args, options | {"hidden_states": swap(options["hidden_states"])}

    def hook(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> object:
        return (swap(output[0]), *output[1:]) if isinstance(output, tuple) else swap(output)

    if is_input:
        handle = module.register_forward_pre_hook(pre_hook, with_kwargs=True)
    else:
        handle = module.register_forward_hook(hook)
    lm.hf(input_ids=donor.ids, use_cache=False)
    expected = references.read(READOUT, references.stock_logits(lm, base), base)
    handle.remove()
    return expected


@pytest.mark.parametrize("part", ["q", "k", "v", "pattern"])
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"])
def test_patching_queries_keys_values_and_patterns_equals_the_slow_reference(name: str, part: str) -> None:
    lm, (base, donor) = model(name), pair(3)
    found = patch(lm, base, donor, READOUT, part)  # type: ignore[arg-type]
    calls: dict[int, AttentionCall] = {}

    def note(call: AttentionCall) -> Tensor:
        calls[call.layer] = call
        return call.compute()

    with handled(lm.attention_modules, note):
        lm.hf(input_ids=donor.ids, use_cache=False)
    for layer, head in [(0, 1), (1, 3), (2, 0)]:

        def change(call: AttentionCall, layer: int = layer, head: int = head) -> Tensor:
            if call.layer != layer:
                return call.compute()
            names = {"q": "q", "k": "k", "v": "v", "pattern": "qk"}[part]
            return received(call, calls[layer], [(layer, head, each) for each in names])  # type: ignore[misc]

        with handled(lm.attention_modules, change):
            logits = lm.hf(input_ids=base.ids, use_cache=False).logits
        assert close(found[:, layer, head], references.read(READOUT, logits, base))


def test_patching_the_whole_residual_gives_the_donor_s_readout() -> None:
    lm, (base, donor) = model("llama"), pair()
    expected = references.read(READOUT, references.stock_logits(lm, donor), donor)
    for layer in range(3):
        assert close(patch(lm, base, donor, READOUT, "residual")[:, layer], expected)


def test_a_site_that_does_not_exist_is_refused() -> None:
    lm, (base, donor) = model("gpt2"), pair()
    with pytest.raises(BadInput, match="unknown site 'residuals'; did you mean 'residual'"):
        patch(lm, base, donor, READOUT, "residuals")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="patched at all positions"):
        patch(lm, base, donor, READOUT, "k", "each")
