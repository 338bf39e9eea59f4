"""alpha: how much attention rests on a key, over the rows that can see it."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.attention import AttentionInputs


def key_importance(layer: AttentionInputs) -> Tensor:
    """alpha of every key: the mean of its column over the real rows that can see it, [item head key].

    Uniform causal attention over T tokens gives alpha[k] = (H_T - H_k) / (T - k). 0 at padding.
    Source: Gu et al. 2024; METHODS 1c
    """
    keys = torch.arange(layer.n_keys, device=layer.lengths.device)
    lengths = layer.lengths[:, None]
    last = lengths if layer.window is None else torch.minimum(lengths, keys + layer.window)
    seen_by = (last - keys).clamp_min(1)
    return layer.column_means() * (lengths / seen_by)[:, None, :]
