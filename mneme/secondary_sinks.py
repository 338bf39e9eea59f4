"""Secondary sinks: tokens whose residual stream points where that of the first token points, for some layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sink_span(norms: Tensor) -> tuple[Tensor, Tensor]:
    """First and last layer of the span between the largest rise and the largest fall of the first token's norm.

    norms [item layer]: the norm of the first token's residual stream, layer l = what enters layer l, the last entry
    what leaves the model. Returns two [item] int64, both ends inclusive; the fall is sought after the rise, and the
    span goes to the last entry where the norm never falls again.
    Source: Wong et al. 2025; METHODS 1d
    """
    steps = norms.diff(dim=1)
    rise = steps.argmax(dim=1)
    layers = torch.arange(steps.shape[1], device=norms.device)
    later = steps.masked_fill(layers <= rise[:, None], torch.inf)
    deepest = later.min(dim=1)
    last = torch.where(deepest.values < 0, deepest.indices, steps.shape[1])
    return rise + 1, last


def follows(states: Tensor, leaders: Tensor, padding: Tensor, threshold: float) -> Tensor:
    """Which other tokens have |cos(h[t], h[leader])| above `threshold`, inside the span: [item layer position] bool.

    Shape: states [item layer position width]; leaders [item] int64, the token to compare with; padding [item
    position], 1 where there is a token. The span is that of the first token; the first token and the leader itself
    never count.
    """
    first, last = sink_span(states[:, :, 0].norm(dim=-1))
    layers = torch.arange(states.shape[1], device=states.device)
    in_span = (layers >= first[:, None]) & (layers <= last[:, None])
    items = torch.arange(len(states), device=states.device)
    cosine = F.cosine_similarity(states, states[items, :, leaders][:, :, None], dim=-1).abs()
    found = (cosine > threshold) & in_span[:, :, None] & padding.bool()[:, None, :]
    found[:, :, 0] = False
    found[items, :, leaders] = False
    return found


def starts_and_lifetimes(found: Tensor) -> tuple[Tensor, Tensor]:
    """First layer and number of layers at which each token is a sink: two [item position] int64, start -1 = never.

    found [item layer position] bool, as `follows` gives it.
    """
    lifetime = found.sum(dim=1)
    start = found.to(torch.int8).argmax(dim=1)
    return torch.where(lifetime > 0, start, -1), lifetime


def classes(lifetimes: Tensor, n_layers: int, primary: float, noise: float) -> dict[str, Tensor]:
    """Which tokens [item position] are `primary_like`, `secondary` or `noise`, by the share of layers that they last.

    primary, noise: shares of n_layers; at least the one is primary-like, at most the other is noise.
    """
    is_primary = lifetimes >= primary * n_layers
    is_noise = (lifetimes <= noise * n_layers) & ~is_primary
    is_sink = lifetimes > 0
    return {
        "primary_like": is_sink & is_primary,
        "secondary": is_sink & ~is_primary & ~is_noise,
        "noise": is_sink & is_noise,
    }
