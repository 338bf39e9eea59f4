"""From final hidden states to logits: only the rows and the vocabulary columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from mneme.errors import NotApplicable

CHUNK_ELEMENTS = 1 << 24  # logits in memory at once: 64 MiB in float32


class _Given(BaseModelOutputWithPast):  # type: ignore[misc]
    """A base model's output of which only the last hidden state is known; whatever else is asked for is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Stand(nn.Module):
    """Stands in for the base model and returns given hidden states."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any, **__: Any) -> _Given:
        """The given hidden states."""
        return _Given(last_hidden_state=self.hidden)


@dataclass(frozen=True)
class Backbone:
    """The part of a causal model below its head: `parent.<name>`, whose last hidden state the head reads."""

    hf: PreTrainedModel
    parent: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        """The backbone itself."""
        return self.parent.get_submodule(self.name)

    def hidden(self, ids: Tensor, **options: Any) -> Tensor:
        """One forward without the unembedding: final hidden states, after the final norm [item position width]."""
        output = self.module(input_ids=ids, **({"use_cache": False} | options))
        return torch.as_tensor(output.last_hidden_state)

    def unembed(self, hidden: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits of final hidden states, by the model's own head with all that it does after it (caps, scales).

        Shape: hidden [row width] as `hidden` returns it; columns [row column] int64, or None = the whole vocabulary
        -> [row column|vocab]. Counts as no forward: no layer runs. Differentiable.
        """
        head = self.hf.get_output_embeddings()
        ids = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
        with _standing_in(self, hidden[None]):
            if columns is not None and type(head) is nn.Linear:
                with _only_columns(head, columns):
                    return torch.as_tensor(self.hf.forward(input_ids=ids, use_cache=False).logits[0])
            logits = torch.as_tensor(self.hf.forward(input_ids=ids, use_cache=False).logits[0])
            return logits if columns is None else logits.gather(1, columns)


def find_backbone(hf: PreTrainedModel, ids: Tensor) -> tuple[Backbone, Tensor]:
    """The backbone that the model's forward calls, and the logits [item position vocab] of the forward that showed it.

    Raises: NotApplicable when neither the base model nor a model right below it is called.
    """
    base = hf.base_model
    candidates = [(base, name) for name, _ in base.named_children()]
    if base is not hf:  # it is where a model gives it another name than its class says
        candidates.insert(0, (hf, hf.base_model_prefix))
    called: list[int] = []
    hooks = [
        parent.get_submodule(name).register_forward_pre_hook(lambda *_, place=place: called.append(place))
        for place, (parent, name) in enumerate(candidates)
        if isinstance(parent.get_submodule(name), PreTrainedModel)
    ]
    try:
        logits = hf(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise NotApplicable(f"{type(hf).__name__} has no base model below its head: Mneme cannot run it")
    return Backbone(hf, *candidates[called[0]]), torch.as_tensor(logits)


def row_chunks(n_rows: int, vocab_size: int) -> Iterator[slice]:
    """Slices of rows whose logits fit in CHUNK_ELEMENTS."""
    size = max(1, CHUNK_ELEMENTS // vocab_size)
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


@contextmanager
def _standing_in(backbone: Backbone, hidden: Tensor) -> Iterator[None]:
    modules, module = backbone.parent._modules, backbone.module
    modules[backbone.name] = _Stand(hidden)
    try:
        yield
    finally:
        modules[backbone.name] = module


@contextmanager
def _only_columns(head: nn.Linear, columns: Tensor) -> Iterator[None]:
    def forward(input: Tensor) -> Tensor:
        logits = torch.einsum("rw,rcw->rc", input[0], head.weight[columns])
        return (logits if head.bias is None else logits + head.bias[columns])[None]

    head.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.forward  # the class's own is back


def widened(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 when they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
