"""Path patching: what sender heads do through chosen receivers alone, all other heads held fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.capturing import capture, head_weights, require_structure
from mneme.errors import BadInput, NotApplicable
from mneme.head_changes import check_sets
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.patching import check_aligned, position_of
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, as_readout, read_hidden, take_rows
from mneme.restart import Enough, Restart, record_baseline, restart, rows_of

STORED = 8  # tensors a layer that are kept of each pair: the clean baseline, the corrupt heads and their stack

Receiver = tuple[int, int, Literal["q", "k", "v"]]
Receivers = Literal["logits"] | Sequence[Receiver]


@torch.no_grad()
def path_patch(  # noqa: PLR0913  the stable signature, plus progress
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    senders: Sequence[tuple[int, int]],
    receivers: Receivers = "logits",
    *,
    positions: str | int | None = None,
    freeze_mlps: bool = False,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each clean prompt when a sender's corrupt output reaches the receivers alone: [item sender].

    All heads but the sender are frozen to their clean outputs between sender and receiver; MLPs and norms are
    recomputed, so that a direct path includes what MLPs make of it, unless freeze_mlps. receivers: "logits", or the
    query, key or value input of heads (layer, head, "q"|"k"|"v"), then the clean run goes on with only these changed.
    With grouped queries, k and v are changed for the one query head that is named, not for its group.
    positions: None = all. A label of the clean prompts, or an index, patches one position alone (Merullo et al. 2023):
    the sender's output, and what the receivers get, there only; with receivers "logits" a readout of other positions
    stays. They freeze the other heads there only; the numbers are the same, since frozen heads read no other position.
    A sender that is not before any receiver gives the clean readout, digit for digit. Unit: the readout's; the
    difference to the clean readout is the effect. Source: METHODS 5b; Wang et al. 2022; Goldowsky-Dill et al. 2023.
    Raises: BadInput for pairs that do not align, heads or positions that do not exist, or a bad readout; NotApplicable
    where the model's parts are not found.
    """
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_aligned(clean, corrupt)
    named = [] if isinstance(receivers, str) else [(layer, head) for layer, head, _ in receivers]
    check_sets(lm, [[*senders, *named]])
    if not isinstance(receivers, str) and any(part not in ("q", "k", "v") for _, _, part in receivers):
        raise BadInput('receivers are "logits" or (layer, head, "q"|"k"|"v")')
    here = clean.padding.bool()
    if positions is not None:
        here = position_of(clean, positions)[:, None] == torch.arange(clean.ids.shape[1], device=here.device)
    question = _Question(as_readout(readout), receivers, freeze_mlps)
    where, n_tokens = ReadRows.of(question.readout, clean), clean.ids.shape[1]

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=clean.ids.device)
        paths = _Paths(lm, (clean.select(some), corrupt.select(some)), items, where, question, here[some])
        found = []
        for done, (layer, head) in enumerate(senders):
            found.append(paths.through(layer, head))
            progress(some.start * len(senders) + (done + 1) * len(items), len(clean) * len(senders))
        return torch.stack(found, dim=1)

    return in_batches(lm, len(clean), n_tokens, run, at_most=items_per_group(lm, n_tokens, STORED))


@dataclass(frozen=True)
class _Question:
    readout: Readout
    receivers: Receivers
    freeze_mlps: bool


class _Paths:
    """Some pairs, prompts `items` of the batch: their clean run and their corrupt heads."""

    def __init__(
        self,
        lm: LanguageModel,
        pairs: tuple[Batch, Batch],
        items: Tensor,
        where: ReadRows,
        question: _Question,
        here: Tensor,
    ) -> None:
        clean, corrupt = pairs
        self.lm = lm
        self.items = items
        self.where = where
        self.question = question
        here = here[:, : clean.ids.shape[1]]
        is_read = torch.zeros_like(here).scatter(1, where.positions[items], value=True)
        reads_here = isinstance(question.receivers, str)
        self.here = here & is_read if reads_here else here  # [item position], where patches can matter
        self.baseline = record_baseline(lm, clean, lambda *_: None, with_mlps=question.freeze_mlps)
        if question.freeze_mlps and len(self.baseline.mlps) != lm.n_layers:
            raise NotApplicable(f"{lm.name}: its MLPs were not found, so they cannot be frozen")
        self.corrupt_z = capture(lm, corrupt, ["z"])["z"].transpose(2, 3)
        self.unchanged = self._read(take_rows(self.baseline.hidden, items, where))

    def through(self, layer: int, head: int) -> Tensor:
        """The readout with one sender's path patched: [item]."""
        receivers = self.question.receivers
        old = self.baseline.z[layer][:, :, head]
        new = torch.where(self.here[:, :, None], self.corrupt_z[:, layer, :, head], old)
        later = [] if isinstance(receivers, str) else [each for each in receivers if each[0] > layer]
        if not isinstance(receivers, str) and not later:
            return self.unchanged
        weight = head_weights(self.lm, require_structure(self.lm).parts[layer])[head]
        write = self.baseline.writes[layer] + (new - old) @ weight
        found = self._to_receivers(layer, write, later) if later else self._to_logits(layer, write)
        differs = (new != old).any(dim=2).any(dim=1)
        return torch.where(differs, found, self.unchanged)

    def _to_logits(self, layer: int, write: Tensor) -> Tensor:
        """No attention runs, so only the rows that are read are computed."""
        rows = self.where.positions[self.items]
        states = self._frozen(layer, write)
        run = Restart(
            layer,
            self.baseline.batch.ids.gather(1, rows),
            rows_of(self.baseline.inputs[layer], rows),
            {each: rows_of(states[each], rows) for each in range(layer, self.lm.n_layers)},
            {each: rows_of(mlp, rows) for each, mlp in self._frozen_mlps(layer).items()},
        )
        return self._read(restart(self.lm, run))

    def _to_receivers(self, layer: int, write: Tensor, receivers: Sequence[Receiver]) -> Tensor:
        """Record the receivers' changed inputs, then run the clean prompts with only these replaced."""
        taken: dict[int, AttentionCall] = {}
        reached = {each[0] for each in receivers}
        first, last = min(reached), max(reached)

        def record(call: AttentionCall) -> Tensor:
            taken[call.layer] = call
            if call.layer == last:
                raise Enough
            return self.baseline.z[call.layer]

        writes = {at: states for at, states in self._frozen(layer, write).items() if at not in reached}
        ids, inputs = self.baseline.batch.ids, self.baseline.inputs
        with suppress(Enough):
            mlps = self._frozen_mlps(layer)
            restart(self.lm, Restart(layer, ids, inputs[layer], writes, mlps, handler=record))

        def receive(call: AttentionCall) -> Tensor:
            if call.layer not in reached:
                return call.compute()
            return received(call, taken[call.layer], [each for each in receivers if each[0] == call.layer])

        hidden = restart(self.lm, Restart(first, ids, inputs[first], handler=receive))
        return self._read(take_rows(hidden, self.items, self.where))

    def _read(self, rows: Tensor) -> Tensor:
        return read_hidden(self.lm, self.question.readout, rows, self.items, self.where)

    def _frozen(self, layer: int, write: Tensor) -> dict[int, Tensor]:
        return {layer: write} | {each: self.baseline.writes[each] for each in range(layer + 1, self.lm.n_layers)}

    def _frozen_mlps(self, layer: int) -> dict[int, Tensor]:
        layers = range(layer, self.lm.n_layers) if self.question.freeze_mlps else range(0)
        return {each: self.baseline.mlps[each] for each in layers}


def received(call: AttentionCall, other: AttentionCall, receivers: Sequence[Receiver]) -> Tensor:
    """Z of a call with some heads' queries, keys or values taken from another call of the same layer."""
    n_shared = call.query.shape[1] // call.key.shape[1]
    query = call.query.clone()
    key, value = (states.repeat_interleave(n_shared, dim=1) for states in (call.key, call.value))
    for _, head, part in receivers:
        if part == "q":
            query[:, head] = other.query[:, head]
        elif part == "k":
            key[:, head] = other.key[:, head // n_shared]
        else:
            value[:, head] = other.value[:, head // n_shared]
    changed = replace(call, query=query, key=key, value=value)
    lengths = torch.full((len(query),), key.shape[2], device=query.device)
    return changed.inputs(lengths).attend(value)
