"""The necessary work of a sweep over heads, by a formula, and the work that the code really did, by hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mneme.model import LanguageModel


def layer_flops(lm: LanguageModel) -> tuple[float, float]:
    """Floating-point operations per token of a whole layer's matrices, and of its MLP alone."""
    weights = [each.numel() for each in lm.structure.parts[0].layer.parameters() if each.ndim == 2]  # type: ignore[union-attr]
    attention = [each.numel() for each in lm.attention_modules[0].parameters() if each.ndim == 2]
    return 2.0 * sum(weights), 2.0 * (sum(weights) - sum(attention))


def counted_flops(
    lm: LanguageModel, n_tokens: int, shared: int, *, by_position: bool = False, with_donor: bool = True
) -> float:
    """Necessary work per prompt of a sweep over heads: what a change can alter, and the runs that it starts from.

    The base prompt once, the donor from the first difference on. In layer l the head's write and the MLP where the
    head is changed; in the next layer queries, keys and values there, the rest from there on; then whole layers; in the
    last layer keys and values from there on, all else only at the position that is read. Products of matrices only:
    attention itself, norms and the two columns of the unembedding that are read are left out.
    """
    layer, mlp = layer_flops(lm)
    write, kv = 2.0 * lm.d_model * lm.head_width, 4.0 * lm.d_model * lm.n_kv_heads * lm.head_width
    qkv, last = kv + 2.0 * lm.d_model * lm.n_heads * lm.head_width, lm.n_layers - 1
    total = (n_tokens + with_donor * (n_tokens - shared)) * lm.n_layers * layer
    for start in range(shared, n_tokens) if by_position else [shared]:
        n_after = n_tokens - start
        n_changed = 1 if by_position else n_after
        if not by_position or n_after == 1:
            total += lm.n_heads * (write + mlp)  # in the last layer
        for first in range(last):
            cell = n_changed * (write + mlp) + layer - kv
            if first == last - 1:
                cell += n_changed * kv
            else:
                cell += n_changed * qkv + n_after * (layer - qkv + (last - 2 - first) * layer + kv)
            total += lm.n_heads * cell
    return total


class Executed:
    """Floating-point operations that the matrices of the layers did."""

    def __init__(self) -> None:
        self.flops = 0.0

    @contextmanager
    def counting(self, lm: LanguageModel) -> Iterator[None]:
        """Count what runs inside."""

        def count(module: torch.nn.Module, args: tuple[Any, ...], _: Any) -> None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            self.flops += 2.0 * weight.numel() * args[0].numel() / args[0].shape[-1]

        modules = [each for parts in lm.structure.parts for each in parts.layer.modules()]  # type: ignore[union-attr]
        linear = [each for each in modules if isinstance(getattr(each, "weight", None), torch.Tensor)]
        hooks = [each.register_forward_hook(count) for each in linear if each.weight.ndim == 2]  # type: ignore[operator,union-attr]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
