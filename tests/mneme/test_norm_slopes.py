"""The gradient of a norm in closed form is the one of the norm itself, or is not given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mneme.norm_slopes import slope_of
from tests.architectures import tiny

STATES, GRADIENTS = torch.randn(2, 2, 3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def before(norm: nn.Module, states: Tensor, gradients: Tensor) -> Tensor:
    leaf = states.clone().requires_grad_()
    return torch.autograd.grad(norm(leaf), leaf, gradients)[0]


def drawn(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return norm.double().requires_grad_(False)


@pytest.mark.parametrize(
    ("norm", "is_centred"),
    [(nn.LayerNorm(16, eps=0.5), True), (nn.RMSNorm(16, eps=0.5), False), (nn.Identity(), False)],
)
@pytest.mark.parametrize("scale", [1.0, 30.0, 0.01])
def test_norms_with_a_large_epsilon_have_their_own_gradient(norm: nn.Module, is_centred: bool, scale: float) -> None:
    states = scale * STATES + 0.5
    slope = slope_of(drawn(norm), states)
    assert slope is not None
    assert slope.is_centred == is_centred
    assert torch.allclose(slope(GRADIENTS), before(norm, states, GRADIENTS), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo", "nemotron", "cohere"])
def test_norms_of_models_that_round_inside_have_it_up_to_rounding(name: str) -> None:
    norm = tiny(name, torch.float64).model.layers[0].input_layernorm
    slope = slope_of(norm, STATES)
    assert slope is not None
    assert torch.allclose(slope(GRADIENTS), before(norm, STATES, GRADIENTS), rtol=1e-5, atol=1e-6)


def test_what_is_no_such_norm_and_states_that_are_zero_or_coarse_have_none() -> None:
    assert slope_of(nn.Tanh(), STATES) is None
    assert slope_of(drawn(nn.Linear(16, 16)), STATES) is None
    assert slope_of(nn.Sequential(nn.LayerNorm(16), nn.Tanh()).double(), STATES) is None
    assert slope_of(drawn(nn.LayerNorm(16)), torch.zeros_like(STATES)) is None
    assert slope_of(nn.LayerNorm(16).bfloat16(), STATES.bfloat16()) is None
