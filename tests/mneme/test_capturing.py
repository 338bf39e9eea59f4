"""Captured arrays are what plain hooks see, and nothing stays behind."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.capturing import Site, capture, stream_attention
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from tests import references
from tests.architectures import INSIDE, tiny

IDS = torch.arange(18).reshape(2, 9) + 3


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name), name, None, "cpu")


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_parts_add_up_to_the_stock_forward(name: str) -> None:
    lm = model(name)
    trace = capture(lm, IDS, ["z", "residual", "mlp_out", "logits", "attention_rows"])
    z = torch.stack(references.all_z(lm, Batch.of(IDS)), dim=1).transpose(2, 3)
    assert torch.allclose(trace["z"], z, atol=1e-5)
    assert torch.allclose(trace["logits"], lm.logits(IDS), atol=1e-5)
    assert trace["residual"].shape == (2, lm.n_layers + 1, 9, 16)
    lm.hf.set_attn_implementation("eager")
    states = lm.hf(input_ids=IDS, output_hidden_states=True, output_attentions=True)
    lm.hf.set_attn_implementation("mneme")
    for layer in range(lm.n_layers):
        assert torch.allclose(trace["residual"][:, layer], states.hidden_states[layer], atol=1e-4)
        assert torch.allclose(trace["attention_rows"][:, layer], states.attentions[layer], atol=1e-5)
    attention_write = trace["residual"][:, 1:] - trace["residual"][:, :-1] - trace["mlp_out"]
    assert lm.structure is not None
    seen: list[torch.Tensor] = []
    hooks = [
        parts.attention_write.register_forward_hook(lambda _, __, output: seen.append(output))  # type: ignore[union-attr]
        for parts in lm.structure.parts
    ]
    lm.logits(IDS)
    for hook in hooks:
        hook.remove()
    scale = torch.tensor([parts.write_scale for parts in lm.structure.parts])[:, None, None]
    assert torch.allclose(attention_write, torch.stack(seen, dim=1) * scale, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen2", "deepseek_v3", "opt"])
def test_head_writes_and_the_bias_sum_to_the_attention_output(name: str) -> None:
    lm = model(name)
    writes = capture(lm, IDS, ["head_writes"])["head_writes"]
    assert lm.structure is not None
    for layer, parts in enumerate(lm.structure.parts):
        found: list[torch.Tensor] = []
        hook = parts.attention.register_forward_hook(lambda _, __, output, found=found: found.append(output[0]))
        lm.logits(IDS)
        hook.remove()
        bias = parts.projection.bias if parts.projection is not None else None
        total = writes[:, layer].sum(dim=1) + (0.0 if bias is None else bias)
        assert torch.allclose(total, found[0], atol=1e-5)


def test_only_what_is_asked_for_is_captured() -> None:
    lm = model("llama")
    every = capture(lm, IDS, ["z", "residual", "logits", "head_writes", "mlp_out", "attention_rows"])
    sites = [
        Site("z", layers=(1,), heads=(2, 0), positions=(8, 3)),
        Site("residual", layers=(0, 3), positions=(4,)),
        Site("logits", positions=(8,)),
        Site("head_writes", layers=(2,), heads=(1,)),
        Site("mlp_out", layers=(0,)),
        Site("attention_rows", layers=(1, 2), heads=(3,), positions=(7,)),
    ]
    some = capture(lm, IDS, sites)
    assert torch.equal(some["z"], every["z"][:, [1]][:, :, [2, 0]][:, :, :, [8, 3]])
    assert torch.equal(some["residual"], every["residual"][:, [0, 3]][:, :, [4]])
    assert torch.allclose(some["logits"], every["logits"][:, [8]], atol=1e-6)
    assert torch.allclose(some["head_writes"], every["head_writes"][:, [2]][:, :, [1]], atol=1e-6)
    assert torch.equal(some["mlp_out"], every["mlp_out"][:, [0]])
    assert torch.allclose(some["attention_rows"], every["attention_rows"][:, 1:, [3]][:, :, :, [7]], atol=1e-6)


def test_rows_of_a_long_prompt_see_the_window_only() -> None:
    lm = model("mistral")
    rows = capture(lm, IDS, [Site("attention_rows", positions=(8,))])["attention_rows"]
    assert float(rows[..., :3].abs().max()) == 0
    assert torch.allclose(rows.sum(dim=-1), torch.ones(2, 3, 4, 1), atol=1e-6)


def test_padding_is_neither_seen_nor_scored() -> None:
    lm = model("gpt2")
    padded = Batch(IDS, torch.tensor([9, 5]))
    rows = capture(lm, padded, ["attention_rows"])["attention_rows"]
    alone = capture(lm, IDS[1:, :5], ["attention_rows"])["attention_rows"]
    assert torch.allclose(rows[1, :, :, :5, :5], alone[0], atol=1e-6)
    assert bool(rows[1, :, :, 5:].isnan().all())


def test_streaming_visits_every_layer_in_one_forward() -> None:
    lm = model("gpt2")
    layers: list[int] = []
    before = lm.forwards

    def visit(inputs: AttentionInputs) -> None:
        layers.append(inputs.layer)

    hidden = stream_attention(lm, IDS, visit)
    assert layers == [0, 1, 2]
    assert lm.forwards == before + 1
    assert torch.equal(hidden, lm.backbone.hidden(IDS))


def count_hooks(lm: LanguageModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.hf.modules())


def test_an_exception_leaves_no_hook_and_no_attribute() -> None:
    lm = model("gpt2")
    before, attributes = lm.logits(IDS), {id(module): set(module.__dict__) for module in lm.hf.modules()}
    hooks = count_hooks(lm)

    def visit(inputs: AttentionInputs) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream_attention(lm, IDS, visit)
    capture(lm, IDS, ["residual", "mlp_out", "z"])
    assert torch.equal(lm.logits(IDS), before)
    assert attributes == {id(module): set(module.__dict__) for module in lm.hf.modules()}
    assert hooks == count_hooks(lm)


def test_sites_that_do_not_exist_are_refused() -> None:
    lm = model("gpt2")
    with pytest.raises(BadInput, match="unknown site 'zz'"):
        capture(lm, IDS, ["zz"])  # type: ignore[list-item]
    with pytest.raises(BadInput, match=r"site z: head 4 does not exist, it must lie in 0\.\.3"):
        capture(lm, IDS, [Site("z", heads=(4,))])
    with pytest.raises(BadInput, match=r"position 9 does not exist"):
        capture(lm, IDS, [Site("logits", positions=(9,))])
    with pytest.raises(BadInput, match="the trace holds no 'y'"):
        capture(lm, IDS, ["z"])["y"]
    with pytest.raises(NotApplicable, match="only behavior probes apply"):
        capture(model("bloom"), IDS, ["z"])
    assert capture(model("bloom"), IDS, ["logits"])["logits"].shape == (2, 9, 40)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "mistral", "gemma2", "gpt_oss", "deepseek_v3"])
def test_streaming_is_the_same_forward_and_knows_the_normaliser_where_it_is_free(name: str) -> None:
    lm = model(name)
    seen: list[AttentionInputs] = []
    hidden = stream_attention(lm, IDS, seen.append)
    assert torch.equal(hidden, lm.backbone.hidden(IDS))
    for inputs in seen:
        assert (inputs.normaliser is not None) == (name in ("gpt2", "llama", "gemma"))
        own = replace(inputs, normaliser=None).log_normaliser()
        assert torch.allclose(inputs.log_normaliser(), own, atol=1e-5)
        queries, keys = torch.tensor([3, 8]), torch.tensor([2, 8])
        rows = inputs.rows([3, 8])
        assert torch.allclose(inputs.entries(queries, keys)[:, :, 0], rows[:, :, 0, 2], atol=1e-5)
