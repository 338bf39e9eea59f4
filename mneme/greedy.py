"""Greedy decoding on the keys and values of what was read, with every attention call in sight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.prefix_cache import Prefix
from mneme.progress import Progress, silent

NOTHING = -1  # in place of a token, once a prompt's response has ended
_STORED = 4  # tensors a layer of each prompt: keys and values, and their copies with one position more

Visit = Callable[[AttentionCall, Tensor, int], None]


@torch.no_grad()
def decode_greedily(
    lm: LanguageModel,
    batch: Batch,
    n_steps: int,
    ends: Callable[[int], bool],
    visit: Visit | None = None,
    progress: Progress = silent,
) -> Tensor:
    """The most probable next token, step by step: [item step] int64, -1 from the token on that ends the response.

    ends(token): whether a token ends it, such as a newline; that token is no part of it. It also ends at `n_steps` and
    at the model's context.
    visit(call, items [unit], step) sees each attention call; its last query is the one that predicts the token of the
    step, which at step 0 is the last token of the prompt.
    Exact: every step equals a plain forward of the whole text so far. Prompts of one length are decoded together.
    Raises: NotApplicable outside the attention interface and for latent attention, whose cache holds no keys.
    """
    n_steps = whole_number("decode_greedily.n_steps", n_steps, 1)
    batch = lm.batch(batch)
    lm.require_attention()
    if lm.structure is None or not lm.structure.has_plain_cache:
        raise NotApplicable(f"{lm.name}: its cache does not hold keys and values, so it cannot be decoded step by step")
    said = torch.full((len(batch), n_steps), NOTHING, device=batch.ids.device)
    done = 0
    for length in sorted(set(batch.lengths.tolist())):
        items = torch.nonzero(batch.lengths == length)[:, 0]
        steps = n_steps if lm.context is None else min(n_steps, lm.context - length + 1)

        def run(some: slice, items: Tensor = items, length: int = length, steps: int = steps) -> Tensor:
            return _Response(lm, items[some], visit).decode(batch.ids[items[some], :length], steps, ends)

        at_most = items_per_group(lm, length + steps, _STORED)
        said[items, :steps] = in_batches(lm, len(items), length + steps, run, at_most=at_most)
        done += len(items)
        progress(done, len(batch))
    return said


class _Response:
    """Some prompts of one length while they are decoded."""

    def __init__(self, lm: LanguageModel, items: Tensor, visit: Visit | None) -> None:
        self.lm = lm
        self.items = items
        self.visit = visit
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def decode(self, ids: Tensor, n_steps: int, ends: Callable[[int], bool]) -> Tensor:
        """[unit step]"""
        said = torch.full((len(ids), n_steps), NOTHING, device=ids.device)
        going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        given = ids
        for step in range(n_steps):
            token = self.lm.backbone.unembed(self._last_hidden(given, step)).argmax(dim=-1)
            going &= torch.tensor([not ends(each) for each in token.tolist()], device=ids.device)
            if not bool(going.any()):
                break
            said[:, step] = token.masked_fill(~going, NOTHING)
            given = token[:, None]
        return said

    def _last_hidden(self, ids: Tensor, step: int) -> Tensor:
        """Final hidden states of the last position after one more forward [unit d_model]."""
        keys, values = self.keys, self.values
        self.keys, self.values = [], []

        def watch(call: AttentionCall) -> Tensor:
            self.keys.append(call.key)
            self.values.append(call.value)
            if self.visit is not None:
                self.visit(call, self.items, step)
            return call.compute()

        with handled(self.lm.attention_modules, watch):
            if not keys:
                return self.lm.backbone.hidden(ids)[:, -1]
            every = torch.arange(len(ids), device=ids.device)
            prefix = Prefix(keys, values, every, keys[0].shape[2])
            return self.lm.backbone.hidden(ids, past_key_values=prefix.cache(), use_cache=True)[:, -1]
