"""Direct logit attribution: parts that add up, and heads that equal their direct path."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from mneme.attribution import direct_logit_attribution, frozen_gain
from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from tests.architectures import INSIDE, tiny

CORRECT, WRONG = torch.tensor([3, 8, 5]), torch.tensor([9, 4, 11])
BATCH = Batch(torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.tensor([9, 6, 8]))


@cache
def model(name: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    return LanguageModel(tiny(name, dtype), name, None, "cpu")


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_the_parts_sum_to_the_logit_difference(name: str) -> None:
    lm = model(name)
    found = direct_logit_attribution(lm, BATCH, CORRECT, WRONG)
    parts = [found[part].reshape(3, -1).sum(dim=1) for part in found if part != "total"]
    last = lm.logits(BATCH)[torch.arange(3), BATCH.lengths - 1]
    difference = last.gather(1, CORRECT[:, None])[:, 0] - last.gather(1, WRONG[:, None])[:, 0]
    assert torch.allclose(sum(parts), found["total"], atol=1e-5 * float(found["heads"].abs().max() + 1))
    if name != "gemma2":
        assert torch.allclose(found["total"], difference.to(found["total"]), atol=1e-4)
    assert found["heads"].shape == (3, lm.n_layers, 4)
    assert float(found["heads"].abs().min()) > 0


def test_a_head_of_gpt2_by_the_formula() -> None:
    lm = model("gpt2")
    found = direct_logit_attribution(lm, BATCH, CORRECT, WRONG)
    last = BATCH.lengths - 1
    trace = capture(lm, BATCH, ["z", "residual"])
    final = trace["residual"][torch.arange(3), -1, last]
    scale = (final.var(dim=-1, unbiased=False) + lm.hf.config.layer_norm_epsilon).sqrt()
    unembed = lm.hf.lm_head.weight[CORRECT] - lm.hf.lm_head.weight[WRONG]
    weights = lm.hf.transformer.h[1].attn.c_proj.weight[8:12]  # layer 1, head 2: rows of its Z
    write = trace["z"][torch.arange(3), 1, 2, last] @ weights
    centred = (write - write.mean(dim=-1, keepdim=True)) / scale[:, None] * lm.hf.transformer.ln_f.weight
    assert torch.allclose(found["heads"][:, 1, 2], (centred * unembed).sum(dim=-1), atol=1e-10)
    bias = lm.hf.transformer.h[1].attn.c_proj.bias
    centred = (bias - bias.mean()) / scale[:, None] * lm.hf.transformer.ln_f.weight
    assert torch.allclose(found["attention_bias"][:, 1], (centred * unembed).sum(dim=-1), atol=1e-10)
    assert torch.allclose(found["norm_bias"], unembed @ lm.hf.transformer.ln_f.bias, atol=1e-10)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(8, dtype=torch.float64), nn.RMSNorm(8, dtype=torch.float64, eps=1e-3)], ids=["layer", "rms"]
)
def test_the_frozen_gain_of_a_norm_is_its_gradient_with_the_scale_held(norm: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    given, direction = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    norm.requires_grad_(False)
    nn.init.normal_(norm.weight, generator=generator)  # type: ignore[arg-type]
    centred = given - given.mean(dim=-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else given
    scale = (centred.pow(2).mean(dim=-1, keepdim=True) + norm.eps).sqrt()  # type: ignore[operator]
    expected = norm.weight * direction / scale
    if isinstance(norm, nn.LayerNorm):
        expected = expected - expected.mean(dim=-1, keepdim=True)
    assert torch.allclose(frozen_gain(norm, given, direction), expected, atol=1e-10)


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(NotApplicable, match="not linear once its scale is frozen"):
        frozen_gain(nn.Tanh(), torch.randn(4, 8), torch.randn(4, 8))


def test_equal_answers_are_refused() -> None:
    with pytest.raises(BadInput, match="differ from the wrong ones"):
        direct_logit_attribution(model("gpt2"), BATCH, CORRECT, CORRECT)
