"""The attention function that transformers calls for us, and the one place where a call may be watched or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mneme.attention import AttentionInputs, visible_keys
from mneme.errors import NotApplicable

NAME = "mneme"
BLOCK = 256  # queries whose mask is in memory at once
HANDLER = "_mneme_handler"  # on an attention module, only while a call of ours runs
stock_sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]


@dataclass
class AttentionCall:
    """One call of the attention of one layer, while it happens.

    Shape: query [item head query width], key, value [item kv_head key width] as they enter attention; mask bool
    [item 1 query key] or None = causal, inside the window where there is one, the queries being the last of the keys;
    options: what else the layer passes (scaling, softcap, s_aux, ...).
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def layer(self) -> int:
        """Index of the layer."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]

    @property
    def first_query(self) -> int:
        """Position of the first query: how many keys come from a cache."""
        return int(self.key.shape[2] - self.query.shape[2])

    @property
    def scale(self) -> float:
        """Factor on the dot products."""
        scaling = self.options.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if scaling is None else scaling)

    @property
    def window(self) -> int | None:
        """Sliding window in tokens; None = the layer sees everything before."""
        window = self.options.get("sliding_window")
        return None if window is None else int(window)

    def compute(self) -> Tensor:
        """Z, the per-head output before the output projection: [item query head width].

        SDPA where it is exact; our own softmax where the layer soft-caps its scores or has learned sinks.
        """
        if self.options.get("softcap") is not None or self.options.get("s_aux") is not None:
            lengths = torch.full((len(self.query),), self.key.shape[2], device=self.query.device)
            return self._inputs(lengths, self.mask, self.window).attend(self.value)
        if self.mask is None and (self.first_query > 0 or self._is_cut_by_window):
            return self._compute_in_blocks()
        z, _ = stock_sdpa(self.module, self.query, self.key, self.value, self.mask, **self.options)
        return torch.as_tensor(z)

    def _compute_in_blocks(self) -> Tensor:
        """Z of some queries at a time, each over no more keys than they see: no mask is larger than a block.

        Query heads that share keys go through the kernel as more queries of one head, so that no key is repeated.
        """
        if self.options.get("position_bias") is not None:
            raise NotApplicable(self._adds_a_bias)
        n_kv_heads, n_queries, width = self.key.shape[1], self.query.shape[2], self.query.shape[3]
        parts = []
        for start in range(0, n_queries, BLOCK):
            positions = torch.arange(start, min(start + BLOCK, n_queries), device=self.query.device) + self.first_query
            low = 0 if self.window is None else max(0, int(positions[0]) - self.window + 1)
            keys = torch.arange(low, int(positions[-1]) + 1, device=self.query.device)
            mask = visible_keys(positions[:, None], keys, self.window)
            query = self.query[:, :, start : start + BLOCK]
            n_shared = query.shape[1] // n_kv_heads
            z = scaled_dot_product_attention(
                query.reshape(len(query), n_kv_heads, -1, width),
                self.key[:, :, low : int(keys[-1]) + 1],
                self.value[:, :, low : int(keys[-1]) + 1],
                attn_mask=mask.repeat(n_shared, 1),
                scale=self.scale,
            )
            parts.append(z.reshape(*query.shape[:3], -1).transpose(1, 2))
        return torch.cat(parts, dim=1)

    @property
    def _is_cut_by_window(self) -> bool:
        return self.window is not None and self.key.shape[2] > self.window

    def compute_with_normaliser(self) -> tuple[Tensor, Tensor | None]:
        """Z as `compute` gives it, digit for digit, and each row's log-sum-exp [item head query] where it comes free.

        The kernel behind SDPA on a CPU knows the latter; elsewhere it is None.
        """
        if not self._is_plain:
            return self.compute(), None
        n_shared = self.query.shape[1] // self.key.shape[1]
        key, value = (states.repeat_interleave(n_shared, dim=1) for states in (self.key, self.value))
        z, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            self.query, key, value, 0.0, True, scale=self.scale
        )
        return z.transpose(1, 2), normaliser

    @property
    def _is_plain(self) -> bool:
        """Whether the call is causal attention over one prompt's own keys on a CPU, and nothing else."""
        extras = [self.options.get(name) for name in ("softcap", "s_aux", "position_bias")]
        shapes_fit = self.query.shape[2] == self.key.shape[2] and self.query.shape[3] == self.value.shape[3]
        return (
            self.query.device.type == "cpu"
            and shapes_fit
            and self.mask is None
            and extras == [None] * 3
            and bool(getattr(self.module, "is_causal", True))
        )

    @property
    def _adds_a_bias(self) -> str:
        return (
            f"layer {self.layer} adds a bias to its attention scores, which Mneme cannot read: "
            "use behavior probes with this model"
        )

    def inputs(self, lengths: Tensor) -> AttentionInputs:
        """What the rows of this call follow from; a mask that only states the window is dropped."""
        n_keys, mask, window = self.key.shape[2], self.mask, self.window
        if window is not None and mask is not None and self.query.shape[2] == n_keys and mask.dtype == torch.bool:
            is_window = bool((mask[:, :, -1].sum(dim=-1) == min(window, n_keys)).all())
            mask, window = (None, window) if is_window else (mask, None)
        elif window is not None and mask is not None and n_keys > window:
            window = None  # the mask alone says what is visible
        return self._inputs(lengths, mask, window)

    def _inputs(self, lengths: Tensor, mask: Tensor | None, window: int | None) -> AttentionInputs:
        if self.options.get("position_bias") is not None or (mask is not None and mask.dtype != torch.bool):
            raise NotApplicable(self._adds_a_bias)
        sinks = self.options.get("s_aux")
        return AttentionInputs(
            layer=self.layer,
            query=self.query,
            key=self.key,
            lengths=lengths.to(self.query.device),
            scale=self.scale,
            mask=mask,
            window=window,
            softcap=self.options.get("softcap"),
            sinks=None if sinks is None else torch.as_tensor(sinks),
        )


Handler = Callable[[AttentionCall], Tensor]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: hands the call to the handler of the module, if one is set."""
    call = AttentionCall(module, query, key, value, attention_mask, options)
    handler: Handler | None = module.__dict__.get(HANDLER)
    return (call.compute() if handler is None else handler(call)), None


@contextmanager
def handled(modules: Sequence[nn.Module], handler: Handler) -> Iterator[None]:
    """Send every attention call of `modules` through `handler`, and leave no trace of that behind.

    The handler hangs on the modules of one model instance, so other models in other threads know nothing of it.
    """
    before = [module.__dict__.get(HANDLER) for module in modules]
    try:
        for module in modules:
            module.__dict__[HANDLER] = handler
        yield
    finally:
        for module, earlier in zip(modules, before, strict=True):
            if earlier is None:
                module.__dict__.pop(HANDLER, None)
            else:
                module.__dict__[HANDLER] = earlier


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
