"""Path patching equals full runs with everything else frozen by hand, and path effects add up where all is linear."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import patch_heads
from mneme.paths import Receiver, Receivers, path_patch, received
from mneme.readouts import logit_difference
from tests import references
from tests.architectures import VOCABULARY, tiny

READOUT = logit_difference(torch.arange(3) + 3, torch.arange(3) + 9)
NAMES = ["gpt2", "gpt_neox", "qwen2", "gemma2", "mistral", "opt", "granite"]


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def pair(*, padded: bool = False) -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 3, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 7, 8]) if padded else torch.full((3,), 9)
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def slow(lm: LanguageModel, pair: tuple[Batch, Batch], sender: tuple[int, int], receivers: list[Receiver]) -> Tensor:
    """Passes A to D of METHODS 5b, each a full forward."""
    clean, corrupt = pair
    corrupt_z, clean_z = references.all_z(lm, corrupt), references.all_z(lm, clean)
    taken: dict[int, AttentionCall] = {}

    def freeze(call: AttentionCall) -> Tensor:
        taken[call.layer] = call
        z = clean_z[call.layer].clone()
        if call.layer == sender[0]:
            z[:, :, sender[1]] = corrupt_z[call.layer][:, :, sender[1]]
        return z

    with handled(lm.attention_modules, freeze):
        logits = lm.hf(input_ids=clean.ids, use_cache=False).logits
    if receivers:

        def receive(call: AttentionCall) -> Tensor:
            here = [each for each in receivers if each[0] == call.layer]
            return received(call, taken[call.layer], here) if here else call.compute()

        with handled(lm.attention_modules, receive):
            logits = lm.hf(input_ids=clean.ids, use_cache=False).logits
    return references.read(READOUT, logits, clean)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_paths_to_the_logits_equal_the_slow_reference(name: str, padded: bool) -> None:
    lm, prompts = model(name), pair(padded=padded)
    senders = [(layer, head) for layer in range(3) for head in (0, 3)]
    found = path_patch(lm, *prompts, READOUT, senders)
    expected = torch.stack([slow(lm, prompts, sender, []) for sender in senders], dim=1)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("receivers", [[(2, 1, "q")], [(1, 2, "v")], [(2, 0, "k")], [(1, 1, "q"), (2, 3, "v")]])
@pytest.mark.parametrize("name", NAMES)
def test_paths_to_head_inputs_equal_the_slow_reference(name: str, receivers: list[Receiver]) -> None:
    lm, prompts = model(name), pair()
    found = path_patch(lm, *prompts, READOUT, [(0, 1), (1, 0)], receivers)
    for column, sender in enumerate([(0, 1), (1, 0)]):
        later = [each for each in receivers if each[0] > sender[0]]
        if later:
            expected = slow(lm, prompts, sender, later)
            assert float((found[:, column] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_what_cannot_matter_is_exactly_the_clean_readout() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    unchanged = patch_heads(lm, clean, clean, READOUT)[:, :1, 0]
    downstream = path_patch(lm, clean, corrupt, READOUT, [(2, 1), (1, 1)], [(1, 0, "q")])
    assert torch.equal(downstream, unchanged.expand(-1, 2))
    assert torch.equal(path_patch(lm, clean, clean, READOUT, [(0, 1)]), unchanged)
    assert torch.equal(path_patch(lm, clean, clean, READOUT, [(0, 1)], [(1, 0, "v")]), unchanged)


def slow_at(
    lm: LanguageModel,
    pair: tuple[Batch, Batch],
    sender: tuple[int, int],
    receivers: list[Receiver],
    place: Tensor,
    *,
    freeze_mlps: bool,
) -> Tensor:
    """Merullo et al. to the letter: heads (and MLPs) are frozen, the sender patched and the receivers overwritten at
    one position of each prompt only; all other positions run freely, in four full forwards.
    """
    clean, corrupt = pair
    items = torch.arange(len(clean))
    corrupt_z, clean_z = references.all_z(lm, corrupt), references.all_z(lm, clean)
    assert lm.structure is not None
    modules = [part.mlp_write for part in lm.structure.parts]
    mlps: list[Tensor] = []
    hooks = [each.register_forward_hook(lambda _, __, output: mlps.append(output.clone())) for each in modules if each]
    lm.hf(input_ids=clean.ids, use_cache=False)
    taken: dict[int, AttentionCall] = {}

    def freeze(call: AttentionCall) -> Tensor:
        taken[call.layer] = call
        z = call.compute()
        z[items, place] = clean_z[call.layer][items, place]
        if call.layer == sender[0]:
            z[items, place, sender[1]] = corrupt_z[call.layer][items, place, sender[1]]
        return z

    def keep_clean(layer: int, output: Tensor) -> Tensor:
        output[items, place] = mlps[layer][items, place]
        return output

    for hook in hooks:
        hook.remove()
    hooks = [
        each.register_forward_hook(lambda _, __, output, layer=layer: keep_clean(layer, output))
        for layer, each in enumerate(modules)
        if each and freeze_mlps
    ]
    with handled(lm.attention_modules, freeze):
        frozen = lm.backbone.hidden(clean.ids)
    for hook in hooks:
        hook.remove()

    def receive(call: AttentionCall) -> Tensor:
        other, query, key, value = taken[call.layer], call.query.clone(), call.key.clone(), call.value.clone()
        n_shared = call.query.shape[1] // call.key.shape[1]
        key, value = (states.repeat_interleave(n_shared, dim=1) for states in (key, value))
        for _, head, part in (each for each in receivers if each[0] == call.layer):
            mine = {"q": query, "k": key, "v": value}[part]
            theirs = {"q": other.query, "k": other.key, "v": other.value}[part]
            mine[items, head, place] = theirs[items, head if part == "q" else head // n_shared, place]
        return replace(call, query=query, key=key, value=value).compute()

    with handled(lm.attention_modules, receive):
        hidden = lm.backbone.hidden(clean.ids)
    if not receivers:
        hidden[items, place] = frozen[items, place]
    logits = lm.backbone.unembed(hidden.flatten(0, 1)).unflatten(0, clean.ids.shape)
    return references.read(READOUT, logits, clean)


AT = torch.tensor([8, 6, 5])  # the last position of two prompts, not of the third, which has 8 tokens
SOME: list[list[Receiver]] = [[], [(2, 1, "q")], [(1, 2, "v")], [(2, 0, "k")], [(1, 1, "q"), (2, 3, "v")]]


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("receivers", SOME, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen2", "gemma2"])
def test_paths_at_one_position_equal_the_slow_reference(
    name: str, receivers: list[Receiver], freeze_mlps: bool
) -> None:
    lm, (clean, corrupt) = model(name), pair(padded=True)
    named = Batch(clean.ids, clean.lengths, {"there": AT})
    asked: Receivers = receivers or "logits"
    senders = [(0, 1), (1, 0)]
    found = path_patch(lm, named, corrupt, READOUT, senders, asked, positions="there", freeze_mlps=freeze_mlps)
    for column, sender in enumerate(senders):
        later = [each for each in receivers if each[0] > sender[0]]
        if later or not receivers:
            expected = slow_at(lm, (clean, corrupt), sender, later, AT, freeze_mlps=freeze_mlps)
            assert float((found[:, column] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
            if name == "gpt2":  # float64 throughout
                assert torch.allclose(found[:, column], expected, atol=1e-10)


def test_an_index_is_that_position_and_a_position_that_nothing_reads_gives_the_clean_readout() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    unchanged = patch_heads(lm, clean, clean, READOUT)[:, :1, 0]
    last = Batch(clean.ids, clean.lengths, {"end": clean.lengths - 1})
    by_index = path_patch(lm, clean, corrupt, READOUT, [(0, 1)], positions=8)
    assert torch.equal(by_index, path_patch(lm, last, corrupt, READOUT, [(0, 1)], positions="end"))
    assert torch.equal(by_index, path_patch(lm, clean, corrupt, READOUT, [(0, 1)]))  # the logits are read there alone
    assert float((by_index - unchanged).abs().min()) > 1e-6
    assert torch.equal(path_patch(lm, clean, corrupt, READOUT, [(0, 1)], positions=4), unchanged)


def test_a_position_that_does_not_exist_is_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair(padded=True)
    for index in (7, -1):
        with pytest.raises(BadInput, match=rf"position {index} does not exist: the shortest prompt has positions 0..6"):
            path_patch(lm, clean, corrupt, READOUT, [(0, 0)], positions=index)
    with pytest.raises(BadInput, match="label 'end' is unknown: the prompts have none"):
        path_patch(lm, clean, corrupt, READOUT, [(0, 0)], positions="end")


def linear_model() -> LanguageModel:
    """Two layers without MLP and norm, attention always uniform; only heads S = (0, 0) and M = (1, 1) act."""
    hf = tiny("gpt2", torch.float64, n_layer=2)
    transformer = hf.transformer
    for layer, head in ((0, 0), (1, 1)):
        block = transformer.h[layer]
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        for weights in (block.mlp.c_proj.weight, block.mlp.c_proj.bias):
            weights.zero_()
        block.attn.c_attn.weight[:, :32] = 0
        block.attn.c_attn.bias[:32] = 0
        kept = block.attn.c_proj.weight[4 * head : 4 * head + 4].clone()
        block.attn.c_proj.weight.zero_()
        block.attn.c_proj.weight[4 * head : 4 * head + 4] = kept
    transformer.ln_f = nn.Identity()
    return LanguageModel(hf.eval(), "linear", None, "cpu")


def test_path_effects_sum_to_the_whole_effect_where_all_is_linear() -> None:
    lm, (clean, corrupt) = linear_model(), pair()
    base = patch_heads(lm, clean, clean, READOUT)[:, 0, 0]
    whole = patch_heads(lm, clean, corrupt, READOUT)[:, 0, 0] - base
    direct = path_patch(lm, clean, corrupt, READOUT, [(0, 0)])[:, 0] - base
    through = path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 1, "v")])[:, 0] - base
    assert torch.allclose(direct + through, whole, atol=1e-10)
    assert float(direct.abs().min()) > 1e-3
    assert float(through.abs().min()) > 1e-3
    places = range(clean.ids.shape[1])
    parts = [path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 1, "v")], positions=at) for at in places]
    assert torch.allclose(torch.stack(parts).sub(base[:, None]).sum(dim=0)[:, 0], through, atol=1e-10)
    assert float(torch.stack(parts).sub(base[:, None]).abs().min()) > 1e-6
    at_end = path_patch(lm, clean, corrupt, READOUT, [(0, 0)], positions=8)[:, 0] - base
    assert torch.allclose(at_end, direct, atol=1e-10)
    by_query = path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 1, "q")])[:, 0] - base
    assert float(by_query.abs().max()) < 1e-10


def test_frozen_mlps_carry_nothing() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    free = path_patch(lm, clean, corrupt, READOUT, [(0, 1), (1, 1)])
    frozen = path_patch(lm, clean, corrupt, READOUT, [(0, 1), (1, 1)], freeze_mlps=True)
    assert float((free - frozen).abs().min()) > 1e-6
    final = lm.structure.parts[-1].layer if lm.structure else None
    assert final is not None
    clean_z, corrupt_z = references.all_z(lm, clean), references.all_z(lm, corrupt)
    change = (corrupt_z[1][:, :, 1] - clean_z[1][:, :, 1]) @ lm.hf.transformer.h[1].attn.c_proj.weight[4:8]
    hook = final.register_forward_hook(lambda _, __, output: output + change)
    expected = references.read(READOUT, references.stock_logits(lm, clean), clean)
    hook.remove()
    assert torch.allclose(frozen[:, 1], expected, atol=1e-10)


def test_heads_and_receivers_that_do_not_exist_are_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    with pytest.raises(BadInput, match=r"head \(3, 0\) does not exist"):
        path_patch(lm, clean, corrupt, READOUT, [(3, 0)])
    with pytest.raises(BadInput, match=r"head \(1, 7\) does not exist"):
        path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 7, "q")])
    with pytest.raises(BadInput, match="receivers are"):
        path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 1, "z")])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="align token by token"):
        path_patch(lm, clean, Batch.of(corrupt.ids[:, :8]), READOUT, [(0, 0)])
