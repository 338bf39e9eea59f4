"""Attribution patching: what patching every head would do, to first order, from two forwards and a backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mneme.arguments import one_of
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.capturing import require_structure
from mneme.cut_forward import Inputs, once_per_head, post_norm, ungrouped
from mneme.edge_scoring import STORED, check_pairs
from mneme.errors import BadInput, NotApplicable
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, ReadRows, as_readout, read_hidden, take_rows
from mneme.structure import first_of
from mneme.unembedding import widened

AttributionMethod = Literal["atp", "qk_fix", "grad_drop", "atp_star"]
HeadPart = Literal["z", "q", "k", "v"]


@torch.no_grad()
def attribution_patching(  # noqa: PLR0913  the stable signature, plus what long runs need
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    part: HeadPart = "z",
    method: AttributionMethod = "atp",
    *,
    progress: Progress = silent,
) -> Tensor:
    """By how much the readout of each clean prompt would change if one head's part came from its corrupt prompt.

    Shape: [item layer head], at all positions together. Unit: the readout's. The exact change is
    `patch_heads(lm, clean, corrupt, readout)`, or `patch` of the part, minus the clean readout; it is met where the
    model is linear in between.

    part: `z`, what a head gives to the output projection, or its queries, keys or values as they enter attention; keys
    and values are changed for one query head, not for its group.
    method: `atp` is the change of the part times the readout's gradient there. `qk_fix`, for `q` and `k` alone: the
    change of Z that the corrupt queries or keys truly make, times the gradient at Z, so that a saturated softmax does
    not hide it. `grad_drop`: the gradient is taken once for each layer with nothing passing through that layer's heads
    and MLP, and the sizes are summed and divided by the number of layers less one, so that what cancels along two paths
    is seen; at least 0, no longer a change. `atp_star`: both; for `z` and `v` it is `grad_drop`.
    Source: METHODS 6a; Nanda 2023; Kramar et al. 2024 (AtP*).
    Raises: BadInput for pairs that do not align or are all the same, float16, a readout without a gradient, or an
    unknown part or method; NotApplicable outside the attention interface, where the layers' writes are not found, and
    for dropped gradients in a model of one layer.
    """
    one_of("part", part, get_args(HeadPart))
    one_of("method", method, get_args(AttributionMethod))
    if method == "qk_fix" and part not in ("q", "k"):
        raise BadInput(f"qk_fix is for queries and keys, not for part {part!r}: choose q or k, or method atp")
    is_fixed = part in ("q", "k") and method in ("qk_fix", "atp_star")
    is_dropped = method in ("grad_drop", "atp_star")
    if is_dropped and lm.n_layers < 2:
        raise NotApplicable(f"{lm.name} has one layer, and gradients are dropped in one layer of several: use atp")
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_pairs(lm, clean, corrupt)
    wanted = as_readout(readout)
    where = ReadRows.of(wanted, clean)

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=clean.ids.device)
        other = _corrupt_calls(lm, corrupt.select(some))
        with torch.enable_grad():
            forward = _forward(lm, clean.select(some), other, part, is_fixed=is_fixed)
            values = read_hidden(lm, wanted, take_rows(forward.hidden, items, where), items, where)
        if not values.requires_grad:
            raise BadInput(f"readout {wanted.name} has no gradient: use one that varies smoothly, or patch the heads")
        return forward.dropped(values) if is_dropped else forward.attributed(values)

    n_tokens = clean.ids.shape[1]
    return in_batches(lm, len(clean), n_tokens, run, progress, at_most=items_per_group(lm, n_tokens, STORED))


@dataclass
class _Forward:
    """A clean run whose graph is kept: by layer a leaf of zeros added to a part, and the change of that part.

    passes: by layer, the factor on gradients into what its heads and its MLP write. Shape of leaves and changes: [item
    head position width], or [item position head width] for Z.
    """

    head_axis: int
    leaves: list[Tensor] = field(default_factory=list)
    changes: list[Tensor] = field(default_factory=list)
    passes: dict[int, float] = field(default_factory=dict)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))

    def attributed(self, values: Tensor, *, is_kept: bool = False) -> Tensor:
        """The changes times the gradients of the readouts: [item layer head]."""
        gradients = torch.autograd.grad(values, self.leaves, torch.ones_like(values), retain_graph=is_kept)
        others = tuple({1, 2, 3} - {self.head_axis})
        pairs = zip(self.changes, gradients, strict=True)
        return torch.stack([(widened(change) * widened(each)).sum(dim=others) for change, each in pairs], dim=1)

    def dropped(self, values: Tensor) -> Tensor:
        """The mean size over the layers whose gradient is dropped, the head's own left out: [item layer head]."""
        total = torch.zeros(())
        n_layers = len(self.leaves)
        for layer in range(n_layers):
            self.passes[layer] = 0.0
            total = total.to(values.device) + self.attributed(values, is_kept=True).abs()
            self.passes[layer] = 1.0
        return total / (n_layers - 1)


def _corrupt_calls(lm: LanguageModel, batch: Batch) -> list[tuple[Inputs, Tensor]]:
    """By layer the queries, keys and values of the corrupt run, once for each query head, and Z."""
    found: list[tuple[Inputs, Tensor]] = []

    def note(call: AttentionCall) -> Tensor:
        z = call.compute()
        found.append((once_per_head(call), z))
        return z

    with handled(lm.attention_modules, note):
        lm.backbone.hidden(batch.ids)
    return found


def _forward(
    lm: LanguageModel, batch: Batch, other: list[tuple[Inputs, Tensor]], part: HeadPart, *, is_fixed: bool
) -> _Forward:
    """Run the clean prompts with a leaf at the part, or at Z where the change of Z is the true one."""
    place = "qkv".find(part)
    forward = _Forward(2 if part == "z" or is_fixed else 1)

    def added(states: Tensor, change: Tensor) -> Tensor:
        leaf = torch.zeros_like(states).requires_grad_()
        forward.leaves.append(leaf)
        forward.changes.append(change.detach())
        return states + leaf

    def attend(call: AttentionCall) -> Tensor:
        inputs, (their_inputs, their_z) = once_per_head(call), other[len(forward.leaves)]
        if part == "z":
            z = call.compute()
            return added(z, their_z - z)
        mixed = list(inputs)
        if is_fixed:
            mixed[place] = their_inputs[place]
            z = ungrouped(call, inputs).compute()
            with torch.no_grad():
                then = ungrouped(call, (mixed[0], mixed[1], mixed[2])).compute()
            return added(z, then - z)
        mixed[place] = added(inputs[place], their_inputs[place] - inputs[place])
        return ungrouped(call, (mixed[0], mixed[1], mixed[2])).compute()

    with _passing(lm, forward.passes), handled(lm.attention_modules, attend):
        forward.hidden = lm.backbone.hidden(batch.ids)
    return forward


@contextmanager
def _passing(lm: LanguageModel, passes: dict[int, float]) -> Iterator[None]:
    """Let the gradients of what each layer's heads and MLP write be multiplied by what `passes` says of the layer."""
    with ExitStack() as stack:
        for layer, parts in enumerate(require_structure(lm).parts):
            passes[layer] = 1.0
            writes = [post_norm(lm, parts) or parts.attention, parts.mlp_write]
            for module in writes:
                assert module is not None  # noqa: S101  post_norm refuses
                stack.callback(module.register_forward_hook(_scaling(passes, layer)).remove)
        yield


def _scaling(passes: dict[int, float], layer: int) -> Callable[..., None]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        written = first_of(output)
        if written.requires_grad:
            written.register_hook(lambda gradient: passes[layer] * gradient)

    return hook
