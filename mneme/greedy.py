"""Greedy decoding on the keys and values of what was read, with every attention call in sight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group, key_tokens, tokens_with_prefix
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.packing import Kept, Piece, run_packed
from mneme.progress import Progress, silent
from mneme.shared_prefix import run_shared

NOTHING = -1  # in place of a token, once a prompt's response has ended
_STORED = 4  # tensors a layer of each prompt: keys and values, and their copies with one position more

Visit = Callable[[AttentionCall, Tensor, int], None]
Ends = Callable[[int], bool]


@torch.no_grad()
def decode_greedily(
    lm: LanguageModel,
    batch: Batch,
    n_steps: int,
    ends: Ends,
    visit: Visit | None = None,
    progress: Progress = silent,
) -> Tensor:
    """The most probable next token, step by step: [item step] int64, -1 from the token on that ends the response.

    ends(token): whether a token ends it, such as a newline; that token is no part of it. It also ends at `n_steps` and
    at the model's context.
    visit(call, items [unit], step) sees each attention call; its last query is the one that predicts the token of the
    step, which at step 0 is the last token of the prompt.
    Exact: every step equals a plain forward of the whole text so far. What prompts of a group share in front is read
    once; a group holds as many as there is room for their keys and values.
    Raises: NotApplicable outside the attention interface, and where a model cannot go on from keys and values.
    """
    n_steps = whole_number("decode_greedily.n_steps", n_steps, 1)
    batch = lm.batch(batch)
    lm.require_attention()
    if not lm.runs_packed:
        raise NotApplicable(
            f"{lm.name} cannot go on from the keys and values of what it has read, so it cannot be decoded step by step"
        )
    said = torch.full((len(batch), n_steps), NOTHING, device=batch.ids.device)
    at_most = items_per_group(lm, key_tokens(lm, batch.ids.shape[1] + n_steps), _STORED)
    done = 0
    for items in torch.split(_alike_together(batch), at_most):
        said[items] = _Responses(lm, batch.select(items), items, visit).decode(n_steps, ends)
        done += len(items)
        progress(done, len(batch))
    return said


def _alike_together(batch: Batch) -> Tensor:
    """The prompts in an order in which those that begin alike are neighbours [item]."""
    rows = [row[:length] for row, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)]
    return torch.tensor(sorted(range(len(rows)), key=lambda item: rows[item]), device=batch.ids.device)


class _Responses:
    """Some prompts while they are decoded; units are their places in this group."""

    def __init__(self, lm: LanguageModel, batch: Batch, items: Tensor, visit: Visit | None) -> None:
        self.lm = lm
        self.batch = batch
        self.items = items
        self.visit = visit
        self.lengths: list[int] = batch.lengths.tolist()
        self.kept: dict[int, Kept] = {}

    def decode(self, n_steps: int, ends: Ends) -> Tensor:
        """[unit step]"""
        said = torch.full((len(self.batch), n_steps), NOTHING, device=self.batch.ids.device)
        going = list(range(len(self.batch)))
        hidden = self._read()
        for step in range(n_steps):
            tokens = self.lm.backbone.unembed(hidden).argmax(dim=-1).tolist()
            told = [(unit, token) for unit, token in zip(going, tokens, strict=True) if not ends(token)]
            for unit, token in told:
                said[unit, step] = token
            going = sorted((unit for unit, _ in told if self._has_room(unit, step)), key=self.lengths.__getitem__)
            if not going or step + 1 == n_steps:
                break
            hidden = self._go_on(going, said[going, step], step + 1)
        return said

    def _has_room(self, unit: int, step: int) -> bool:
        """Whether the token said at a step still fits into the context, so that another may follow it."""
        return self.lm.context is None or self.lengths[unit] + step + 1 <= self.lm.context

    def _read(self) -> Tensor:
        """Final hidden states of the last token of each prompt [unit d_model]; keys and values are kept."""
        last = self.batch.lengths[:, None] - 1
        hidden = run_shared(
            self.lm, self.batch, last, lambda call, units, _: self._show(call, units.tolist(), 0), kept=self.kept
        )
        return hidden[:, 0]

    def _go_on(self, going: list[int], tokens: Tensor, step: int) -> Tensor:
        """Final hidden states after one token more [unit d_model], units in the order given."""

        def run(some: slice) -> Tensor:
            units = going[some]
            pieces = [
                Piece(token[None], self.lengths[unit] + step - 1, self.kept[unit])
                for unit, token in zip(units, tokens[some], strict=True)
            ]

            def watch(call: AttentionCall, places: list[int]) -> None:
                self._show(call, [units[place] for place in places], step)
                for unit_of_call, place in enumerate(places):
                    kept = self.kept[units[place]]
                    kept.keys[call.layer] = call.key[unit_of_call : unit_of_call + 1]
                    kept.values[call.layer] = call.value[unit_of_call : unit_of_call + 1]

            return torch.cat(run_packed(self.lm.backbone, self.lm.attention_modules, pieces, watch))

        longest = max(self.lengths[unit] for unit in going) + step
        return in_batches(self.lm, len(going), tokens_with_prefix(self.lm, 1, longest), run)

    def _show(self, call: AttentionCall, units: list[int], step: int) -> None:
        if self.visit is not None:
            self.visit(call, self.items[units], step)
