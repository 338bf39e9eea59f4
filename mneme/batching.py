"""How many prompts go through one forward: a rule on shapes, halved when memory runs out, and recorded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mneme.model import LanguageModel
from mneme.progress import Progress, silent

CPU_ELEMENTS = 1 << 24  # activations in flight, 64 MiB in float32: larger batches leave the caches and run slower
DEVICE_SHARE = 0.25  # of an accelerator's whole memory, whoever else uses it: the same digits on every run
ACTIVATIONS = 12  # tensors of the residual's width alive at once in a layer, its MLP included
STORED_ELEMENTS = 1 << 27  # activations kept of one group of prompts while they are changed: 512 MiB in float32

logger = logging.getLogger(__name__)


def items_per_forward(lm: LanguageModel, n_tokens: int) -> int:
    """Prompts of `n_tokens` per forward: a function of shapes, dtype and the device's size, never of its load.

    Once memory ran out for prompts of that length, the halved number stands (`lm.items_per_forward`).
    """
    if n_tokens not in lm.items_per_forward:
        lm.items_per_forward[n_tokens] = max(1, _elements(lm) // (ACTIVATIONS * n_tokens * _width(lm)))
    return lm.items_per_forward[n_tokens]


def items_per_group(lm: LanguageModel, n_tokens: int, n_stored: int) -> int:
    """Prompts of which `n_stored` tensors a layer, of the residual's width, are kept while they are changed."""
    return max(1, STORED_ELEMENTS // (n_stored * lm.n_layers * n_tokens * _width(lm)))


def key_tokens(lm: LanguageModel, n_tokens: int) -> int:
    """Tokens of the residual's width that take as much memory as the keys, or the values, of `n_tokens` in a layer."""
    return math.ceil(n_tokens * lm.n_kv_heads * lm.head_width / _width(lm))


def tokens_with_prefix(lm: LanguageModel, n_tokens: int, n_prefix: int) -> int:
    """Tokens that take as much memory in a forward as `n_tokens` after a stored prefix, whose keys and values count."""
    share = 2 * lm.n_kv_heads * lm.head_width / (ACTIVATIONS * _width(lm))
    return n_tokens + math.ceil(n_prefix * share)


def in_batches(
    lm: LanguageModel,
    n_items: int,
    n_tokens: int,
    run: Callable[[slice], Tensor],
    progress: Progress = silent,
    at_most: int | None = None,
) -> Tensor:
    """Results of `run` over slices of 0 .. n_items, of `at_most` items each, joined on the first axis.

    When a slice runs out of memory, half as many prompts of this length go through a forward from then on; a single
    prompt that does not fit raises the device's own error.
    """
    parts: list[Tensor] = []
    start = 0
    while start < n_items:
        size = min(items_per_forward(lm, n_tokens), at_most or n_items)
        stop = min(start + size, n_items)
        try:
            parts.append(run(slice(start, stop)))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or stop - start == 1:
                raise
            lm.items_per_forward[n_tokens] = max(1, (stop - start) // 2)
            logger.warning("out of memory with %d prompts of %d tokens: going on with half", stop - start, n_tokens)
            continue
        start = stop
        progress(start, n_items)
    return torch.cat(parts)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _width(lm: LanguageModel) -> int:
    return max(lm.d_model, lm.n_heads * lm.head_width if lm.attention else 0)


def _elements(lm: LanguageModel) -> int:
    device = torch.device(lm.device)
    if device.type != "cuda":
        return CPU_ELEMENTS
    memory = torch.cuda.get_device_properties(device).total_memory
    return int(memory * DEVICE_SHARE) // lm.dtype.itemsize
