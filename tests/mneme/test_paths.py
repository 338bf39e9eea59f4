"""Path patching equals full runs with everything else frozen by hand, and path effects add up where all is linear."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import patch_heads
from mneme.paths import Receiver, path_patch, received
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
    return LanguageModel(hf, "linear", None, "cpu")


def test_path_effects_sum_to_the_whole_effect_where_all_is_linear() -> None:
    lm, (clean, corrupt) = linear_model(), pair()
    base = patch_heads(lm, clean, clean, READOUT)[:, 0, 0]
    whole = patch_heads(lm, clean, corrupt, READOUT)[:, 0, 0] - base
    direct = path_patch(lm, clean, corrupt, READOUT, [(0, 0)])[:, 0] - base
    through = path_patch(lm, clean, corrupt, READOUT, [(0, 0)], [(1, 1, "v")])[:, 0] - base
    assert torch.allclose(direct + through, whole, atol=1e-10)
    assert float(direct.abs().min()) > 1e-3
    assert float(through.abs().min()) > 1e-3
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
