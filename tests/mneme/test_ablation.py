"""Ablation equals a full forward per head with the head's output replaced by hand."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.ablation import AblationKind, ablate_head_sets, ablate_heads
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.readouts import Readout, log_probability, logit_difference
from tests import references
from tests.architectures import INSIDE, VOCABULARY, tiny


@cache
def model(name: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    return LanguageModel(tiny(name, dtype), name, None, "cpu")


def prompts(n_items: int = 3, n_tokens: int = 9, *, padded: bool = False, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (n_items, n_tokens), generator=generator)
    lengths = torch.full((n_items,), n_tokens)
    if padded:
        lengths = torch.tensor([n_tokens, n_tokens - 3, n_tokens - 1])[:n_items]
    return Batch(ids, lengths)


def difference(n_items: int = 3) -> Readout:
    return logit_difference(torch.arange(n_items) + 3, torch.arange(n_items) + 9)


def tolerance(found: Tensor, dtype: torch.dtype = torch.float64) -> float:
    """Where transformers itself computes in float32, float64 digits end there (issue: 1e-5, else 1e-10)."""
    return float(found.abs().max()) * 1e-5 if dtype == torch.float64 else 1e-4


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", sorted(INSIDE))
def test_zeroing_each_head_equals_the_slow_reference(name: str, padded: bool) -> None:
    lm, batch = model(name), prompts(padded=padded)
    slow = references.each_head(lm, batch, difference(), [torch.zeros_like(z) for z in references.all_z(lm, batch)])
    fast = ablate_heads(lm, batch, difference())
    assert float((slow - fast).abs().max()) <= tolerance(slow)
    assert float((slow - slow[:, :1, :1]).abs().max()) > 1e-3, "the heads matter"


def test_gpt2_in_float64_agrees_to_ten_digits() -> None:
    lm, batch = model("gpt2"), prompts()
    slow = references.each_head(lm, batch, difference(), [torch.zeros_like(z) for z in references.all_z(lm, batch)])
    assert float((ablate_heads(lm, batch, difference()) - slow).abs().max()) <= 1e-10 * float(slow.abs().max())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_float32_agrees_to_a_ten_thousandth(name: str) -> None:
    lm, batch = model(name, torch.float32), prompts()
    slow = references.each_head(lm, batch, difference(), [torch.zeros_like(z) for z in references.all_z(lm, batch)])
    assert float((ablate_heads(lm, batch, difference()) - slow).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2", "gpt_oss"])
def test_mean_ablation_takes_the_mean_at_each_position_of_the_reference(name: str) -> None:
    lm, batch, reference = model(name), prompts(), prompts(5, seed=1)
    means = [z.mean(dim=0, keepdim=True).expand(3, -1, -1, -1) for z in references.all_z(lm, reference)]
    slow = references.each_head(lm, batch, difference(), means)
    fast = ablate_heads(lm, batch, difference(), "mean", reference)
    assert float((slow - fast).abs().max()) <= tolerance(slow)


def test_padding_of_the_reference_does_not_enter_its_mean() -> None:
    lm, batch, reference = model("gpt2"), prompts(), prompts(3, padded=True, seed=1)
    every, lengths = references.all_z(lm, reference), reference.lengths
    means = []
    for z in every:
        at = [z[lengths > place, place].mean(dim=0) for place in range(9)]
        means.append(torch.stack(at).expand(3, -1, -1, -1))
    slow = references.each_head(lm, batch, difference(), means)
    fast = ablate_heads(lm, batch, difference(), "mean", reference)
    assert float((slow - fast).abs().max()) <= tolerance(slow)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_resampling_takes_the_heads_of_the_reference_prompts(name: str) -> None:
    lm, batch, reference = model(name), prompts(), prompts(seed=1)
    slow = references.each_head(lm, batch, difference(), references.all_z(lm, reference))
    fast = ablate_heads(lm, batch, difference(), "resample", reference)
    assert float((slow - fast).abs().max()) <= tolerance(slow)


def test_resampling_without_a_reference_takes_the_next_prompt() -> None:
    lm, batch = model("gpt2"), prompts()
    donors = Batch.of(batch.ids.roll(-1, dims=0))
    one = ablate_heads(lm, batch, difference(), "resample")
    assert torch.equal(one, ablate_heads(lm, batch, difference(), "resample", donors))


def test_resampling_from_the_prompts_themselves_changes_nothing() -> None:
    lm, batch = model("gpt2"), prompts()
    unchanged = ablate_head_sets(lm, batch, difference(), [[]])
    assert torch.equal(ablate_heads(lm, batch, difference(), "resample", batch), unchanged[:, :, None].expand(-1, 3, 4))


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gpt_oss"])
def test_uniform_attention_is_the_mean_of_the_visible_values(name: str) -> None:
    lm, batch = model(name), prompts()
    values: list[Tensor] = []
    from mneme.interception import AttentionCall, handled

    def note(call: AttentionCall) -> Tensor:
        values.append(call.value.repeat_interleave(lm.n_heads // lm.n_kv_heads, dim=1))
        return call.compute()

    with handled(lm.attention_modules, note):
        references.stock_logits(lm, batch)
    uniform = []
    for layer, value in enumerate(values):
        window = lm.windows[layer] or 99
        rows = [value[:, :, max(0, query - window + 1) : query + 1].mean(dim=2) for query in range(9)]
        uniform.append(torch.stack(rows, dim=1))
    slow = references.each_head(lm, batch, difference(), uniform)
    fast = ablate_heads(lm, batch, difference(), "uniform")
    assert float((slow - fast).abs().max()) <= tolerance(slow)


def test_scaling_by_one_changes_nothing_and_by_zero_is_zero_ablation() -> None:
    lm, batch = model("gpt2"), prompts()
    unchanged = ablate_head_sets(lm, batch, difference(), [[]])[:, :, None]
    assert torch.equal(ablate_heads(lm, batch, difference(), "scale", factor=1.0), unchanged.expand(-1, 3, 4))
    zero = ablate_heads(lm, batch, difference())
    assert torch.equal(ablate_heads(lm, batch, difference(), "scale", factor=0.0), zero)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gpt_neox", "gemma2"])
def test_factors_of_prompts_and_heads_at_one_position_equal_the_slow_reference(name: str) -> None:
    lm, batch = model(name), prompts(padded=True)
    factors = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    last, items = batch.lengths - 1, torch.arange(3)
    sets = [[(0, 1), (2, 3)], [(1, 0)], [(2, 2)]]
    fast = ablate_head_sets(lm, batch, difference(), sets, "scale", factor=factors, positions=last)
    for place, heads in enumerate(sets):

        def change(layer: int, z: Tensor, heads: list[tuple[int, int]] = heads) -> Tensor:
            for _, head in [each for each in heads if each[0] == layer]:
                z[items, last, head] *= factors[:, layer, [head]]
            return z

        with references.changed_heads(lm, change):
            slow = references.read(difference(), references.stock_logits(lm, batch), batch)
        assert float((fast[:, place] - slow).abs().max()) <= tolerance(slow)
    everywhere = ablate_head_sets(lm, batch, difference(), sets, "scale", factor=factors)
    assert float((everywhere - fast).abs().max()) > 1e-3, "the other positions matter"


def test_a_label_an_index_and_positions_name_the_same_place() -> None:
    lm, batch = model("gpt2"), prompts()
    labelled = Batch(batch.ids, batch.lengths, {"here": torch.full((3,), 4)})
    by_label = ablate_heads(lm, labelled, difference(), positions="here")
    assert torch.equal(by_label, ablate_heads(lm, batch, difference(), positions=4))
    assert torch.equal(by_label, ablate_heads(lm, batch, difference(), positions=torch.full((3,), 4)))


@pytest.mark.parametrize("kind", ["zero", "mean", "resample", "uniform"])
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gpt_neox"])
def test_a_set_over_several_layers_equals_the_slow_reference(name: str, kind: AblationKind) -> None:
    lm, batch, reference = model(name), prompts(padded=kind == "zero"), prompts(seed=1)
    sets = [[(0, 1), (0, 2), (2, 3)], [(1, 0)], [], [(0, 0), (1, 1), (2, 2)], [(2, 0), (2, 1)]]
    fast = ablate_head_sets(lm, batch, difference(), sets, kind, None if kind in ("zero", "uniform") else reference)
    donors = references.all_z(lm, reference)
    for place, heads in enumerate(sets):

        def change(layer: int, z: Tensor, heads: list[tuple[int, int]] = heads) -> Tensor:
            for _, head in [each for each in heads if each[0] == layer]:
                if kind == "zero":
                    z[:, :, head] = 0
                elif kind == "mean":
                    z[:, :, head] = donors[layer][:, :, head].mean(dim=0)
                elif kind == "resample":
                    z[:, :, head] = donors[layer][:, :, head]
            return z

        if kind == "uniform":
            continue
        with references.changed_heads(lm, change):
            slow = references.read(difference(), references.stock_logits(lm, batch), batch)
        assert float((fast[:, place] - slow).abs().max()) <= tolerance(slow)
    if kind == "uniform":
        single = ablate_heads(lm, batch, difference(), "uniform")[:, 1, 0]
        assert float((fast[:, 1] - single).abs().max()) <= tolerance(single)


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_a_shared_prefix_is_not_recomputed_and_changes_nothing(name: str) -> None:
    lm, batch, donors = model(name), prompts(), prompts(seed=1)
    donors.ids[:, :5] = batch.ids[:, :5]
    donors.ids[2, :7] = batch.ids[2, :7]
    slow = references.each_head(lm, batch, difference(), references.all_z(lm, donors))
    fast = ablate_heads(lm, batch, difference(), "resample", donors)
    assert float((slow - fast).abs().max()) <= tolerance(slow)
    heads = [(0, 1), (1, 2), (2, 0), (2, 3)]

    def change(layer: int, z: Tensor) -> Tensor:
        for _, head in [each for each in heads if each[0] == layer]:
            z[:, :, head] = replaced[layer][:, :, head]
        return z

    replaced = references.all_z(lm, donors)
    with references.changed_heads(lm, change):
        together = references.read(difference(), references.stock_logits(lm, batch), batch)
    found = ablate_head_sets(lm, batch, difference(), [heads], "resample", donors)[:, 0]
    assert float((found - together).abs().max()) <= tolerance(together)


def test_a_readout_over_many_positions_equals_the_slow_reference() -> None:
    lm, batch = model("llama"), prompts(padded=True)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[:, 1:5] = True
    mask[0, 7] = True
    readout = log_probability(batch, mask)
    slow = references.each_head(lm, batch, readout, [torch.zeros_like(z) for z in references.all_z(lm, batch)])
    assert float((ablate_heads(lm, batch, readout) - slow).abs().max()) <= tolerance(slow)


def test_zeroing_all_heads_of_a_layer_leaves_the_output_bias() -> None:
    lm, batch = model("gpt2"), prompts()
    attention = lm.attention_modules[1]
    hook = attention.register_forward_hook(
        lambda module, _, output: (torch.zeros_like(output[0]) + module.c_proj.bias, *output[1:])
    )
    expected = references.read(difference(), references.stock_logits(lm, batch), batch)
    hook.remove()
    found = ablate_head_sets(lm, batch, difference(), [[(1, head) for head in range(4)]])[:, 0]
    assert torch.allclose(found, expected, atol=1e-12)
    assert not torch.allclose(found, ablate_head_sets(lm, batch, difference(), [[]])[:, 0], atol=1e-3)


def test_small_batches_give_the_same_numbers_as_large_ones() -> None:
    lm, batch = model("gpt2"), prompts(padded=True)
    large = ablate_heads(lm, batch, difference())
    lm.items_per_forward[9] = 2
    assert torch.allclose(ablate_heads(lm, batch, difference()), large, atol=1e-12)
    del lm.items_per_forward[9]


def test_progress_ends_at_the_number_of_changed_runs() -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    ablate_heads(model("gpt2"), prompts(), difference(), progress=progress)
    assert seen[-1] == (3 * 12, 3 * 12)
    assert sorted(seen) == seen


def test_nothing_is_left_on_the_model() -> None:
    lm, batch = model("gpt2"), prompts()
    before = lm.logits(batch)
    attributes = {id(module): set(module.__dict__) for module in lm.hf.modules()}

    def broken(logits: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ablate_heads(lm, batch, broken)  # type: ignore[arg-type]
    ablate_heads(lm, batch, difference(), "uniform")
    assert torch.equal(lm.logits(batch), before)
    assert attributes == {id(module): set(module.__dict__) for module in lm.hf.modules()}
    assert not any(module._forward_hooks for module in lm.hf.modules())


def test_bad_questions_are_refused_in_one_sentence() -> None:
    lm, batch = model("gpt2"), prompts()
    with pytest.raises(BadInput, match="mean ablation needs reference prompts"):
        ablate_heads(lm, batch, difference(), "mean")
    with pytest.raises(BadInput, match="so some positions have no mean"):
        ablate_heads(lm, batch, difference(), "mean", prompts(n_tokens=5))
    with pytest.raises(BadInput, match="unknown ablation 'zeros'; did you mean 'zero'"):
        ablate_heads(lm, batch, difference(), "zeros")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="needs a factor"):
        ablate_heads(lm, batch, difference(), "scale")
    with pytest.raises(BadInput, match=r"head \(0, 9\) does not exist"):
        ablate_head_sets(lm, batch, difference(), [[(0, 9)]])
    with pytest.raises(BadInput, match="answers for 2 prompts, not 3"):
        ablate_heads(lm, batch, difference(2))
    with pytest.raises(BadInput, match="one position of each prompt"):
        ablate_heads(lm, batch, difference(), positions=torch.tensor([1, 2, 9]))
    with pytest.raises(BadInput, match="position label 'end' is unknown"):
        ablate_heads(lm, batch, difference(), positions="end")
    with pytest.raises(BadInput, match="factors must be one number or"):
        ablate_heads(lm, batch, difference(), "scale", factor=torch.ones(3))
    with pytest.raises(BadInput, match="NaN or infinity"):
        ablate_heads(lm, batch, lambda logits: logits[:, 0] * torch.nan)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not one number per row"):
        ablate_heads(lm, batch, lambda logits: logits[:, :2])  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="one reference prompt per prompt"):
        ablate_heads(lm, batch, difference(), "resample", prompts(2))


def test_a_model_outside_the_attention_interface_is_refused() -> None:
    with pytest.raises(NotApplicable, match="only behavior probes apply"):
        ablate_heads(model("bloom", torch.float32), prompts(), difference())
