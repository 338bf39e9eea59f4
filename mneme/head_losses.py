"""What the loss on a text changes by when one head says nothing, or looks at the first token only."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.attention import AttentionInputs
from mneme.attention_shares import entry_shares, row_mean
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import stream_attention
from mneme.head_changes import HeadChanges, run_changes
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, log_probability

KINDS = ("zero", "to_first")


@torch.no_grad()
def loss_changes(lm: LanguageModel, batch: Batch, kind: str, progress: Progress = silent) -> Tensor:
    """Loss on all next tokens of a prompt with a head changed, minus the loss without a change: [item layer head] nats.

    kind: `zero` the head's output is 0; `to_first` all its attention goes to the first token, so that it writes that
    token's value everywhere. Positive = the head is of use. The prompts need two tokens at least.
    Source: Guo et al. 2024; METHODS 18
    """
    batch = lm.batch(batch)
    heads = [[(layer, head)] for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    sets = [[], *heads]
    readout = mean_log_probability(batch)
    if kind == "zero":
        found = ablate_head_sets(lm, batch, readout, sets, "zero", progress=progress)
    else:
        found = run_changes(lm, batch, readout, HeadChanges(sets, lambda _: _first_value), progress)
    return (found[:, :1] - found[:, 1:]).reshape(-1, lm.n_layers, lm.n_heads).float().cpu()


@torch.no_grad()
def first_token_attention(lm: LanguageModel, batch: Batch, progress: Progress = silent) -> Tensor:
    """alpha_0, the mean attention to the first token over the rows of a prompt: [item layer head].

    Source: METHODS 1c, 18
    """
    batch = lm.batch(batch)

    def run(items: slice) -> Tensor:
        found: dict[int, Tensor] = {}

        def visit(layer: AttentionInputs) -> None:
            queries = torch.arange(layer.n_queries, device=layer.query.device)
            found[layer.layer] = row_mean(entry_shares(layer, queries, torch.zeros_like(queries)))

        stream_attention(lm, batch.select(items), visit)
        return torch.stack([found[layer] for layer in sorted(found)], dim=1).cpu()

    return in_batches(lm, len(batch), batch.ids.shape[1], run, progress)


def mean_log_probability(batch: Batch) -> Readout:
    """Mean log-probability of every next token of a prompt: minus its loss."""
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return log_probability(batch, positions < batch.lengths[:, None] - 1)


def _first_value(call: AttentionCall, z: Tensor, _: Tensor) -> Tensor:
    """Z when all attention goes to the first token: its value at every position."""
    first = call.value[:, :, 0].repeat_interleave(z.shape[2] // call.value.shape[1], dim=1)
    return first[:, None].expand_as(z)
