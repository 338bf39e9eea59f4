"""Runs a model on token embeddings that were changed: blended into a mean embedding, or replaced by it in places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.model import LanguageModel
from mneme.readouts import ReadRows, logit_difference, read_hidden, take_rows


@dataclass(frozen=True)
class Embedded:
    """Prompts as embeddings, and the logit difference of their answers at the last token.

    Shape: correct, wrong [item answer] int64; clean [item position width], what the embedding of the tokens gives,
    before positions are added; blank [width], the mean of that over the whole vocabulary: a token that says nothing.
    """

    lm: LanguageModel
    batch: Batch
    correct: Tensor
    wrong: Tensor
    clean: Tensor
    blank: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, lm: LanguageModel, ids: Tensor | Batch, correct: Tensor, wrong: Tensor) -> Embedded:
        """The prompts as they are."""
        batch = lm.batch(ids)
        module = lm.hf.get_input_embeddings()
        every = module(torch.arange(lm.vocab_size, device=batch.ids.device))
        return cls(lm, batch, correct.to(lm.device), wrong.to(lm.device), module(batch.ids), every.mean(dim=0))

    def select(self, items: Tensor) -> Embedded:
        """The named items, cut to the longest of them."""
        batch = self.batch.select(items)
        clean = self.clean[items, : batch.ids.shape[1]]
        return Embedded(self.lm, batch, self.correct[items], self.wrong[items], clean, self.blank)

    def read(self, embeddings: Tensor) -> Tensor:
        """The logit difference of one forward on embeddings [item position width], differentiable: [item]."""
        items = torch.arange(len(self.batch), device=self.batch.ids.device)
        readout = logit_difference(self.correct, self.wrong)
        where = ReadRows.of(readout, self.batch)
        with _given(self.lm.hf.get_input_embeddings(), embeddings):
            hidden = self.lm.backbone.hidden(self.batch.ids)
        return read_hidden(self.lm, readout, take_rows(hidden, items, where), items, where)

    @torch.no_grad()
    def read_without(self, is_blank: Tensor) -> Tensor:
        """The logit difference with the blank token where `is_blank` [item position] says so: [item]."""
        return self.read(torch.where(is_blank[:, :, None], self.blank, self.clean))

    def gradient(self, embeddings: Tensor) -> Tensor:
        """Of the logit difference with respect to embeddings [item position width], at these embeddings."""
        at = embeddings.detach().requires_grad_(True)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.read(at).sum(), at)
        return found


@contextmanager
def _given(module: nn.Module, embeddings: Tensor) -> Iterator[None]:
    def instead(*_: Any) -> Tensor:
        return embeddings

    hook = module.register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()
