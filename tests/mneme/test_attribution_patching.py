"""Attribution patching: slopes of the readout, saturated softmaxes and cancelling paths, beside exact patching."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mneme.attribution_patching import AttributionMethod, HeadPart, attribution_patching
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import patch
from mneme.readouts import Readout, logit_difference
from tests import planted, references
from tests.architectures import VOCABULARY, tiny

READOUT = logit_difference(torch.arange(2) + 3, torch.arange(2) + 9)
LAST_IS_1, LAST_IS_2 = torch.tensor([[3, 1]]), torch.tensor([[3, 2]])
LOGIT_0 = Readout("logit_0", "logits", lambda logits, _, __: logits[:, 0])
NAMES = ["gpt2", "llama", "gpt_neox", "gemma2", "granite", "opt"]
WRITES = {"gpt2": ("attn", "mlp"), "gpt_neox": ("attention", "mlp"), "llama": ("self_attn", "mlp")}


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


@cache
def pair() -> tuple[Batch, Batch]:
    ids = torch.randint(3, VOCABULARY, (2, 2, 6), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([6, 5])
    return Batch(ids[0], lengths), Batch(ids[1], lengths)


def stock(lm: LanguageModel) -> Tensor:
    return references.read(READOUT, references.stock_logits(lm, pair()[0]), pair()[0])


@pytest.mark.parametrize("name", NAMES)
def test_z_is_the_slope_of_a_plain_forward_in_the_share_of_one_head_s_change(name: str) -> None:
    lm, (clean, corrupt) = model(name), pair()
    found = attribution_patching(lm, clean, corrupt, READOUT)
    before, then = references.all_z(lm, clean), references.all_z(lm, corrupt)
    for layer, head in [(0, 0), (0, 3), (1, 2), (2, 1)]:
        share = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def changed(place: int, z: Tensor, layer: int = layer, head: int = head, share: Tensor = share) -> Tensor:
            step = torch.zeros_like(z)
            step[:, :, head] = (then[layer] - before[layer])[:, :, head]
            return z + share * step if place == layer else z

        with references.changed_heads(lm, changed):
            slopes = [torch.autograd.grad(each, share, retain_graph=True)[0] for each in stock(lm)]
        assert torch.allclose(found[:, layer, head], torch.stack(slopes), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_queries_keys_and_values_are_slopes_as_well(name: str, part: HeadPart) -> None:
    lm, (clean, corrupt) = model(name), pair()
    found = attribution_patching(lm, clean, corrupt, READOUT, part)
    layer, head = 1, 2
    share = torch.zeros((), dtype=torch.float64, requires_grad=True)
    values = _between(lm, part, layer, head, share)
    slopes = [torch.autograd.grad(each, share, retain_graph=True)[0] for each in values]
    assert torch.allclose(found[:, layer, head], torch.stack(slopes), rtol=1e-6, atol=1e-10)


def _between(lm: LanguageModel, part: HeadPart, layer: int, head: int, share: Tensor) -> Tensor:
    """The readout with a share of the change of one head's queries, keys or values."""
    name, calls = {"q": "query", "k": "key", "v": "value"}[part], []

    def note(call: AttentionCall) -> Tensor:
        calls.append(call)
        return call.compute()

    def changed(call: AttentionCall) -> Tensor:
        z = call.compute()
        if call.layer == layer:
            own, theirs = getattr(call, name), getattr(calls[layer], name)
            other = replace(call, **{name: own + share * (theirs - own)}).compute()
            return torch.where((torch.arange(lm.n_heads) == head)[:, None], other, z)
        return z

    with handled(lm.attention_modules, note):
        lm.backbone.hidden(pair()[1].ids)
    with handled(lm.attention_modules, changed):
        return stock(lm)


@pytest.mark.parametrize("part", ["z", "v"])
def test_where_all_is_linear_it_equals_exact_patching(part: HeadPart) -> None:
    effects = torch.tensor([[0.5, -0.25], [2.0, 0.125]])
    lm = LanguageModel(planted.additive_model(effects).double(), "sum", None, "cpu")
    found = attribution_patching(lm, LAST_IS_1, LAST_IS_2, LOGIT_0, part)
    assert torch.allclose(found[0], -effects.double(), rtol=1e-12)
    exact = patch(lm, LAST_IS_1, LAST_IS_2, LOGIT_0, part)
    assert torch.allclose(found, exact - effects.sum().double(), rtol=1e-9)


def copier() -> LanguageModel:
    """The planted copier, whose heads are as good as certain of where they look, with nothing that bends its logits."""
    hf = planted.copy_model().double().requires_grad_(False)
    hf.transformer.ln_f = nn.Identity()
    return LanguageModel(hf.eval(), "copier", None, "cpu")


@pytest.mark.parametrize("part", ["q", "k"])
def test_a_saturated_head_hides_from_the_gradient_and_not_from_the_true_change(part: HeadPart) -> None:
    lm, tokens = copier(), [planted.FIRST_ID, 10, 11, 12, 13, 14, 11]
    other = [*tokens[:-1], 13] if part == "q" else [planted.FIRST_ID, 10, 13, 12, 11, 14, 11]
    clean, corrupt = torch.tensor([tokens]), torch.tensor([other])
    readout = logit_difference(torch.tensor([12]), torch.tensor([14]))
    layer, head = planted.INDUCTION_HEAD
    exact = patch(lm, clean, corrupt, readout, part)[0] - readout(lm.logits(clean)[:, -1])
    assert float(exact[layer, head]) == pytest.approx(-2 * planted.SCALE)
    hidden = attribution_patching(lm, clean, corrupt, readout, part)[0]
    assert abs(float(hidden[layer, head])) < 1e-6
    seen = attribution_patching(lm, clean, corrupt, readout, part, "qk_fix")[0]
    assert float(seen[layer, head]) == pytest.approx(-2 * planted.SCALE)


@pytest.mark.parametrize("part", ["q", "k"])
def test_the_fix_is_the_whole_effect_on_z_times_the_slope_there(part: HeadPart) -> None:
    """In the last layer, whose Z the readout sees through the MLP and the norm alone, for one head."""
    lm, (clean, corrupt) = model("llama"), pair()
    found = attribution_patching(lm, clean, corrupt, READOUT, part, "qk_fix")
    layer, head = 2, 3
    gradient: list[Tensor] = []

    def leaf(place: int, z: Tensor) -> Tensor:
        if place == layer:
            gradient.append(z.requires_grad_())
        return z

    with references.changed_heads(lm, leaf):
        slope = torch.autograd.grad(stock(lm).sum(), gradient)[0]
    change = _z_with(lm, part, layer) - references.all_z(lm, clean)[layer]
    by_hand = (change * slope)[:, :, head].sum(dim=(1, 2))
    assert torch.allclose(found[:, layer, head], by_hand, rtol=1e-6, atol=1e-10)


def _z_with(lm: LanguageModel, part: HeadPart, layer: int) -> Tensor:
    """Z of a layer with all corrupt queries or keys."""
    name, calls, found = {"q": "query", "k": "key"}[part], [], []

    def note(call: AttentionCall) -> Tensor:
        calls.append(call)
        return call.compute()

    def take(call: AttentionCall) -> Tensor:
        if call.layer == layer:
            found.append(replace(call, **{name: getattr(calls[layer], name)}).compute())
        return call.compute()

    with handled(lm.attention_modules, note):
        lm.backbone.hidden(pair()[1].ids)
    with handled(lm.attention_modules, take):
        lm.backbone.hidden(pair()[0].ids)
    return found[0]


def test_paths_that_cancel_are_seen_once_one_of_them_is_dropped() -> None:
    hf = planted.additive_model(torch.tensor([[0.75], [0.0]])).double()
    hf.transformer.h[1].attn.c_attn.weight[0, 64] = 1.0  # reads what the first head writes, not the token
    hf.transformer.h[1].attn.c_attn.weight[1, 64] = 0.0
    hf.transformer.h[1].attn.c_proj.weight[0, 0] = -2.0  # and takes it away: half the attention rests on the token
    lm = LanguageModel(hf, "cancelling", None, "cpu")
    plain = attribution_patching(lm, LAST_IS_1, LAST_IS_2, LOGIT_0)[0, :, 0]
    assert plain.tolist() == pytest.approx([0.0, 0.75], abs=1e-12)
    dropped = attribution_patching(lm, LAST_IS_1, LAST_IS_2, LOGIT_0, method="grad_drop")[0, :, 0]
    assert dropped.tolist() == pytest.approx([0.75, 0.75])


@pytest.mark.parametrize(("method", "whole"), [("grad_drop", "atp"), ("atp_star", "qk_fix")])
@pytest.mark.parametrize("name", list(WRITES))
def test_dropping_equals_runs_whose_layers_write_without_a_gradient(
    name: str, method: AttributionMethod, whole: AttributionMethod
) -> None:
    lm = model(name)
    found = attribution_patching(lm, *pair(), READOUT, "q", method)
    total = torch.zeros_like(found)
    for layer in range(lm.n_layers):
        with ExitStack() as stack:
            block = lm.hf.base_model.get_submodule(f"{'h' if name == 'gpt2' else 'layers'}.{layer}")
            for module in WRITES[name]:
                stack.callback(block.get_submodule(module).register_forward_hook(_without_slope).remove)
            total += attribution_patching(lm, *pair(), READOUT, "q", whole).abs()
    assert torch.allclose(found, total / (lm.n_layers - 1), rtol=1e-9, atol=1e-12)
    assert float(found.min()) >= 0


def _without_slope(_: nn.Module, __: Any, output: Any) -> Any:
    flat = output[0] if isinstance(output, tuple) else output
    flat = flat.detach() + 0.0 * flat
    return (flat, *output[1:]) if isinstance(output, tuple) else flat


def test_prompts_one_by_one_give_what_they_give_together_and_leave_nothing_behind() -> None:
    lm, (clean, corrupt) = model("gemma2"), pair()
    before = lm.logits(clean)
    for method in ("qk_fix", "atp_star"):
        together = attribution_patching(lm, clean, corrupt, READOUT, "k", method)  # type: ignore[arg-type]
        lm.items_per_forward[6] = 1
        alone = attribution_patching(lm, clean, corrupt, READOUT, "k", method)  # type: ignore[arg-type]
        del lm.items_per_forward[6]
        assert torch.allclose(alone, together, rtol=1e-9, atol=1e-12)
    assert torch.equal(lm.logits(clean), before)
    assert all(each.grad is None for each in lm.hf.parameters())


def test_what_cannot_be_meant_is_refused() -> None:
    lm, (clean, corrupt) = model("gpt2"), pair()
    refusals: list[tuple[Callable[[], Tensor], str]] = [
        (lambda: attribution_patching(lm, clean, corrupt, READOUT, "x"), "part is 'x': choose one of z, q, k, v"),  # type: ignore[arg-type]
        (lambda: attribution_patching(lm, clean, corrupt, READOUT, "q", "atp*"), "method is 'atp"),  # type: ignore[arg-type]
        (lambda: attribution_patching(lm, clean, corrupt, READOUT, "v", "qk_fix"), "qk_fix is for queries and keys"),
        (lambda: attribution_patching(lm, clean, clean, READOUT), "every corrupt prompt is its clean prompt"),
        (
            lambda: attribution_patching(lm, clean, corrupt, lambda logits: logits.argmax(dim=1).double()),
            "has no gradient",
        ),
    ]
    for call, message in refusals:
        with pytest.raises(BadInput, match=message):
            call()
    single = LanguageModel(tiny("gpt2", n_layer=1), "single", None, "cpu")
    with pytest.raises(NotApplicable, match="single has one layer"):
        attribution_patching(single, clean, corrupt, READOUT, method="grad_drop")
    with pytest.raises(NotApplicable):
        attribution_patching(LanguageModel(tiny("bloom"), "bloom", None, "cpu"), clean, corrupt, READOUT)
