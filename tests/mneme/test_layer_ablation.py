"""Ablating a layer's attention or MLP equals a full forward in which a plain hook puts the mean in its place."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mneme.ablation import ablate_head_sets
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.layer_ablation import LayerWrite, mean_ablate_layers
from mneme.model import LanguageModel
from mneme.readouts import logit_difference
from mneme.structure import first_of
from tests import references
from tests.architectures import VOCABULARY, tiny

READOUT = logit_difference(torch.arange(4) + 3, torch.arange(4) + 9)
NAMES = ["gpt2", "gpt_neox", "qwen2", "gemma2", "opt", "granite"]


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def prompts() -> Batch:
    ids = torch.randint(3, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 6, 7, 8])
    return Batch(ids, lengths, {"end": lengths - 1})


def modules(lm: LanguageModel, site: LayerWrite) -> list[nn.Module]:
    assert lm.structure is not None
    writers = [part.mlp_write if site == "mlp" else part.attention for part in lm.structure.parts]
    return [each for each in writers if each is not None]


def written(lm: LanguageModel, batch: Batch, module: nn.Module) -> Tensor:
    found: list[Tensor] = []
    hook = module.register_forward_hook(
        lambda _, __, output: found.append(first_of(output).reshape(*batch.ids.shape, -1))
    )
    references.stock_logits(lm, batch)
    hook.remove()
    return found[0]


def slow(lm: LanguageModel, batch: Batch, site: LayerWrite, *, at_end: bool) -> Tensor:
    """One full forward per layer, the mean of each position taken over the prompts that reach it: [item layer]."""
    columns = []
    for module in modules(lm, site):
        before = written(lm, batch, module)
        after = before.clone()
        if at_end:
            ends = [before[item, int(length) - 1] for item, length in enumerate(batch.lengths)]
            for item, length in enumerate(batch.lengths):
                after[item, int(length) - 1] = torch.stack(ends).mean(dim=0)
        else:
            for place in range(batch.ids.shape[1]):
                after[:, place] = before[batch.lengths > place, place].mean(dim=0)

        def change(_: nn.Module, __: object, output: object, after: Tensor = after) -> object:
            put = after.reshape(first_of(output).shape)
            return (put, *output[1:]) if isinstance(output, tuple) else put

        hook = module.register_forward_hook(change)
        columns.append(references.read(READOUT, references.stock_logits(lm, batch), batch))
        hook.remove()
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("site", ["mlp", "attention"])
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_set_to_its_mean_equals_the_slow_reference(name: str, site: LayerWrite, at_end: bool) -> None:
    lm, batch = model(name), prompts()
    found = mean_ablate_layers(lm, batch, READOUT, site, "end" if at_end else None)
    expected = slow(lm, batch, site, at_end=at_end)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    clean = references.read(READOUT, references.stock_logits(lm, batch), batch)
    assert float((found - clean[:, None]).abs().max()) > 1e-2, "the layers matter"


def test_the_mean_attention_of_a_layer_is_the_mean_of_all_its_heads() -> None:
    lm, batch = model("gpt2"), prompts()
    sets = [[(layer, head) for head in range(4)] for layer in range(3)]
    heads = ablate_head_sets(lm, batch, READOUT, sets, "mean", batch)
    assert torch.allclose(mean_ablate_layers(lm, batch, READOUT, "attention"), heads, atol=1e-10)


def test_a_single_prompt_is_its_own_mean() -> None:
    lm, batch = model("qwen2"), prompts().select(slice(0, 1))
    readout = logit_difference(torch.tensor([3]), torch.tensor([9]))
    clean = references.read(readout, references.stock_logits(lm, batch), batch)
    assert torch.allclose(mean_ablate_layers(lm, batch, readout, "mlp"), clean[:, None].expand(-1, 3), atol=1e-10)


def test_small_batches_give_the_same_numbers_as_large_ones() -> None:
    lm, batch = model("gpt2"), prompts()
    large = mean_ablate_layers(lm, batch, READOUT, "mlp")
    lm.items_per_forward[8] = 3
    assert torch.allclose(mean_ablate_layers(lm, batch, READOUT, "mlp"), large, atol=1e-12)
    del lm.items_per_forward[8]


def test_bad_questions_are_refused() -> None:
    with pytest.raises(BadInput, match="position label 'start' is unknown"):
        mean_ablate_layers(model("gpt2"), prompts(), READOUT, "mlp", "start")
    with pytest.raises(NotApplicable, match="only behavior probes apply"):
        mean_ablate_layers(LanguageModel(tiny("bloom"), "bloom", None, "cpu"), prompts(), READOUT, "mlp")
