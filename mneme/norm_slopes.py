"""The gradient of a norm in closed form, read off how the norm answers, so that many gradients pass it at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-5}  # some norms round to float32 inside, whatever they are given


@dataclass(frozen=True)
class NormSlope:
    """At given states, the gradient before a norm of one after it, g [item position d_model].

    It is centred(factor * gain * g) - bend * core * (core . (factor * gain * g)), where centred takes the mean over the
    width away if is_centred, core [item position d_model] are the states (centred if so), gain [d_model], factor and
    bend [item position]. The norm itself gives factor * gain * core + shift; shift [d_model].
    """

    gain: Tensor
    shift: Tensor
    factor: Tensor
    bend: Tensor
    core: Tensor
    is_centred: bool

    def __call__(self, gradients: Tensor) -> Tensor:
        """The gradient before the norm: [item position d_model]."""
        scaled = self.factor[..., None] * self.gain * gradients
        found = self.bend[..., None] * self.core * (self.core * scaled).sum(dim=-1, keepdim=True)
        return (scaled - scaled.mean(dim=-1, keepdim=True) if self.is_centred else scaled) - found


@torch.no_grad()
def slope_of(norm: nn.Module, states: Tensor) -> NormSlope | None:
    """The slope of a LayerNorm, an RMSNorm or the identity, of any make, at states [item position d_model].

    None where the module is none of these, as two gradients of its own tell, or the states are rounded coarsely.
    """
    if states.dtype not in TOLERANCE:
        return None
    here = states.detach()
    bias = getattr(norm, "bias", None)
    shift = here.new_zeros(here.shape[-1]) if bias is None else torch.as_tensor(bias).to(here)
    signs = torch.ones_like(here[:1, :1])
    signs[..., 1::2] = -1
    output = norm(here) - shift
    gain = ((norm(signs) - shift) * signs)[0, 0]
    moved = norm(here + here.abs().mean()) - shift
    is_centred = float((moved - output).abs().max()) < 1e-3 * float(output.abs().max())
    core = here - here.mean(dim=-1, keepdim=True) if is_centred else here
    unscaled = gain * core
    factor = (unscaled * output).sum(dim=-1) / (unscaled * unscaled).sum(dim=-1)
    straight = NormSlope(gain, shift, factor, torch.zeros_like(factor), core, is_centred)
    after = straight(output)
    through = factor[..., None] * gain * output
    size = (core * core).sum(dim=-1) * (core * through).sum(dim=-1)
    bend = (core * (after - _by_autograd(norm, here, output))).sum(dim=-1) / size
    slope = NormSlope(gain, shift, factor, bend, core, is_centred)
    other = output.roll(1, dims=-1)
    expected = _by_autograd(norm, here, other)
    error = float((slope(other) - expected).abs().max())
    return slope if error <= TOLERANCE[states.dtype] * float(expected.abs().max()) else None


def _by_autograd(norm: nn.Module, states: Tensor, gradients: Tensor) -> Tensor:
    leaf = states.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(norm(leaf), leaf, gradients)[0]
