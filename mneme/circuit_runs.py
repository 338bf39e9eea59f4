"""Runs circuits: every slot reads the ablated stream and, along its kept edges, what their sources change in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mneme.ablated_stream import AblatedStream
from mneme.batching import STORED_ELEMENTS, items_per_forward
from mneme.capturing import head_weights, require_structure
from mneme.cut_forward import Inputs, once_per_head, ungrouped
from mneme.edge_gradients import Question
from mneme.head_entries import HeadEntry
from mneme.interception import AttentionCall
from mneme.layer_runs import attention_call, heads_write, mlp_write, read_stream
from mneme.model import LanguageModel

CHUNK_ELEMENTS = 1 << 22  # inputs of slots at once: 16 MiB in float32, which an allocator gives again without new pages


@dataclass(frozen=True)
class Prompts:
    """Some clean prompts, `items` of the batch: ids, what enters the first layer, and the ablated stream."""

    question: Question
    ids: Tensor
    items: Tensor
    clean: Tensor
    ablated: AblatedStream


class CircuitRun:
    """Some circuits on some prompts at once: edges [circuit source slot] bool.

    Sources that no kept edge leaves are not run. Of each layer only what its heads and its MLP change is kept: z
    [circuit item position head width] and mlp [circuit item position d_model], None where they were not run.
    known: both of the first layers, where circuit is 1 since they are the same in all circuits; these are not run.
    """

    def __init__(self, prompts: Prompts, edges: Tensor, known: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.prompts = prompts
        self.lm, self.graph = prompts.question.lm, prompts.question.graph
        self.edges = edges
        self.z: list[Tensor | None] = [z for z, _ in known]
        self.mlps: list[Tensor | None] = [mlp for _, mlp in known]

    def read(self) -> Tensor:
        """The readout under each circuit: [item circuit]."""
        values = self.prompts.ablated.values
        for layer in range(len(self.z), self.lm.n_layers):
            leaves = self.edges.any(dim=2).any(dim=0)
            has_heads = bool(leaves[self.graph.head_sources(layer)].any())
            self.z.append(self._z(layer) - values.z[layer] if has_heads else None)
            has_mlp = bool(leaves[self.graph.source_of_mlp(layer)])
            self.mlps.append(self._mlp(layer) - values.mlps[layer] if has_mlp else None)
        last = torch.tensor([self.graph.n_slots - 1], device=self.edges.device)
        leaving = self._inputs(self.prompts.ablated.leaving, last, slice(None)).flatten(0, 2)
        items, question = self.prompts.items.repeat(len(self.edges)), self.prompts.question
        found = read_stream(self.lm, self._ids(), leaving, question.readout, items, question.where)
        return found.reshape(len(self.edges), -1).T

    def _ids(self, n_copies: int = 1) -> Tensor:
        return self.prompts.ids.repeat(n_copies * len(self.edges), 1)

    def _mlp(self, layer: int) -> Tensor:
        """What the MLP of a layer adds: [circuit item position d_model]."""
        ablated = self.prompts.ablated
        base = ablated.entering[layer] if self.graph.is_parallel[layer] else ablated.middle[layer]
        slot = torch.tensor([self.graph.slot_of_mlp(layer)], device=self.edges.device)
        states = self._inputs(base, slot, slice(None))[:, 0]
        return mlp_write(self.lm, layer, self._ids(), states.flatten(0, 1)).reshape(states.shape)

    def _z(self, layer: int) -> Tensor:
        """Z of the heads of a layer: [circuit item position head width]."""
        here = self.graph.head_slots(layer)
        read = self.edges[:, :, here].any(dim=1).any(dim=0).nonzero()[:, 0]  # slots that no edge enters read alike
        entry = self.prompts.question.entries[layer]
        found = self._mixed(layer, read) if entry.blocks is None else self._assembled(layer, entry, read)
        call, inputs = found
        z = ungrouped(call, inputs).compute()
        return z.reshape(len(self.edges), -1, *z.shape[1:])

    def _mixed(self, layer: int, read: Tensor) -> tuple[AttentionCall, Inputs]:
        """Queries, keys and values of each head from a run of the layer's entry of its own for each slot."""
        start, base = self.graph.head_slots(layer).start, self.prompts.ablated.entering[layer]
        n_circuits, n_heads = len(self.edges), self.lm.n_heads
        call = attention_call(self.lm, layer, self._ids(), base.repeat(n_circuits, 1, 1))
        parts = [each.clone() for each in once_per_head(call)]
        for slot in read.tolist():
            states = self._inputs(base, torch.tensor([start + slot], device=read.device), slice(None)).flatten(0, 2)
            other = once_per_head(attention_call(self.lm, layer, self._ids(), states))
            parts[slot // n_heads][:, slot % n_heads] = other[slot // n_heads][:, slot % n_heads]
        return call, (parts[0], parts[1], parts[2])

    def _assembled(self, layer: int, entry: HeadEntry, read: Tensor) -> tuple[AttentionCall, Inputs]:
        """The same where projections can be put together: each head's columns from what its own slot reads.

        Query heads that share keys and values take turns, one copy of the prompts for each sharer.
        """
        assert entry.blocks is not None  # noqa: S101  the caller checked
        n_shared, base = self.lm.n_heads // self.lm.n_kv_heads, self.prompts.ablated.entering[layer]
        projected = self._projected(layer, entry, read, n_shared)
        given = {module: states.flatten(0, 2) for module, states in projected.items()}
        n_copies = n_shared * len(self.edges)
        call = attention_call(self.lm, layer, self._ids(n_shared), base.repeat(n_copies, 1, 1), given)
        query, key, value = (each.reshape(n_shared, -1, *each.shape[1:]) for each in (call.query, call.key, call.value))
        n_units = query.shape[1]
        mask = call.mask if call.mask is None or len(call.mask) == 1 else call.mask[:n_units]
        keys, values = (states.permute(1, 2, 0, 3, 4).flatten(1, 2) for states in (key, value))
        return replace(call, mask=mask), (query[0], keys, values)

    def _projected(self, layer: int, entry: HeadEntry, read: Tensor, n_shared: int) -> dict[nn.Module, Tensor]:
        """Outputs of the projections: [sharer circuit item position width]."""
        assert entry.blocks is not None  # noqa: S101  the caller checked
        assert entry.norm is not None  # noqa: S101  blocks have one
        base, start = self.prompts.ablated.entering[layer], self.graph.head_slots(layer).start
        normed = entry.norm(base)
        found = {
            module: module(normed)[None, None].repeat(n_shared, len(self.edges), 1, 1, 1) for module in entry.modules
        }
        for some in self._chunks(len(read), base.shape[1]):
            states = entry.norm(self._inputs(base, start + read, some))
            for place, slot in enumerate(read.tolist()):
                block, head = entry.blocks[slot // self.lm.n_heads], slot % self.lm.n_heads
                n_sharers = self.lm.n_heads // len(block.columns)
                made = states[:, place] @ block.weight[head // n_sharers]
                if block.bias is not None:
                    made = made + block.bias[head // n_sharers]
                found[block.module][head % n_sharers, :, :, some, block.columns[head // n_sharers]] = made
        return found

    def _inputs(self, base: Tensor, slots: Tensor, some: slice) -> Tensor:
        """What slots read at some positions: [circuit slot item position d_model]; base is the ablated stream there."""
        kept = self.edges[:, :, slots]
        rows, base = kept.to(base), base[:, some]
        shape = (len(self.edges), len(slots), *base.shape)
        found = base.expand(shape)
        if bool(kept[:, 0].any()):
            change = self.prompts.clean[:, some] - self.prompts.ablated.values.stream[:, some]
            found = found + rows[:, 0, :, None, None, None] * change
        for layer, z in enumerate(self.z):
            here = self.graph.head_sources(layer)
            heads = kept[:, here].any(dim=2).any(dim=0).nonzero()[:, 0]
            if z is not None and len(heads):
                weights = head_weights(self.lm, require_structure(self.lm).parts[layer])[heads]
                written = torch.einsum("ciphw,hwd->chipd", z[:, :, some][:, :, :, heads], weights).flatten(2)
                change = (rows[:, here][:, heads].transpose(1, 2) @ written).reshape(shape)
                found = found + self._added(layer, change, some)
        for layer, mlp in enumerate(self.mlps):
            row = self.graph.source_of_mlp(layer)
            if mlp is not None and bool(kept[:, row].any()):
                found = found + rows[:, row, :, None, None, None] * mlp[:, None, :, some]
        return found

    def _added(self, layer: int, change: Tensor, some: slice) -> Tensor:
        """By how much what the heads of a layer add changes with the attention module's output."""
        if self.prompts.question.entries[layer].post_norm is None:
            return heads_write(self.lm, layer, change)
        output = self.prompts.ablated.outputs[layer][:, some]
        return heads_write(self.lm, layer, output + change) - heads_write(self.lm, layer, output)

    def _chunks(self, n_slots: int, n_positions: int) -> Iterator[slice]:
        """Positions at which the inputs of `n_slots` slots fit in CHUNK_ELEMENTS."""
        per_position = 3 * max(1, n_slots) * len(self.edges) * len(self.prompts.ids) * self.lm.d_model
        size = max(1, CHUNK_ELEMENTS // per_position)
        for start in range(0, n_positions, size):
            yield slice(start, min(start + size, n_positions))


def circuits_at_once(lm: LanguageModel, n_items: int, n_tokens: int) -> int:
    """Circuits whose changes of all heads and MLPs are kept together, on all the prompts of a group."""
    kept = STORED_ELEMENTS // (2 * lm.n_layers * n_items * n_tokens * max(lm.d_model, lm.n_heads * lm.head_width))
    return max(1, min(kept, items_per_forward(lm, n_tokens) // n_items))
