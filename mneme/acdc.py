"""ACDC: a circuit by taking edges away one by one, for as long as the model's predictions hardly change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.ablated_stream import AblatedStream, EdgeAblation, SourceValues, shared_values
from mneme.arguments import one_of
from mneme.batch import Batch
from mneme.batching import items_per_group
from mneme.circuit_runs import CircuitRun, Prompts, circuits_at_once
from mneme.circuits import Circuit, pruned
from mneme.edge_gradients import Pairs, Question
from mneme.edge_scoring import STORED, check_pairs
from mneme.errors import BadInput
from mneme.kl_readout import kl_from_clean
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout

Order = Literal["late-first", "early-first", "random"]
Known = list[tuple[Tensor, Tensor]]  # by layer, what its heads and its MLP change from the corrupt to the clean run


@torch.no_grad()
def acdc(  # noqa: PLR0913  the stable signature, plus what long runs need
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    *,
    tau: float,
    metric: Literal["kl"] | Readout | Callable[[Tensor], Tensor] = "kl",
    positions: Tensor | None = None,
    order: Order = "late-first",
    seed: int = 0,
    is_absolute: bool = False,
    ablation: EdgeAblation = "corrupt",
    progress: Progress = silent,
) -> Circuit:
    """The edges whose removal, each in its turn, would make the loss grow by `tau` or more.

    Slots are visited from the logits down. Each edge into a slot is tried with all earlier removals in force: it then
    carries its source's ablated value, and is removed for good where the loss grows by less than tau.
    Slots of heads and MLPs that no kept edge leaves are not tried. Last, the circuit is pruned (see `pruned`), which
    leaves its loss as it is; `n_requested` is what was kept before.

    metric: `kl`, the loss is the KL divergence in nats from the model's own predictions on the clean prompts, at the
    last real position or at `positions`, bool [item position]; or a readout that is larger for better, and the loss is
    its mean with the sign turned.
    tau: from 0 (in which case an edge without any effect stays) to infinity (nothing stays), in the metric's unit.
    order: of the sources of a slot: `late-first`, `early-first`, or `random` by `seed`. Of two that stand in for each
    other the one tried first goes. is_absolute: edges whose removal makes the loss fall by tau or more stay too.
    ablation: what a removed edge carries: what its source writes in the corrupt prompt, the `mean` of that by position
    over all prompts, or `zero`.
    Layers below the visited slot run once, not for every edge. Edges are tried several at a time as if all before them
    went, and from the first that stays on again: the decisions are those of trying one by one.
    Departs from the authors' code in that a head or MLP is dropped when none of its slots reads anything, not each slot
    of a head alone. Source: METHODS 7; Conmy et al. 2023.
    Raises: BadInput for a tau below 0 or none, pairs that do not align or are all the same, precision below float32, or
    a bad readout; NotApplicable where the model's parts are not found.
    """
    one_of("order", order, get_args(Order))
    one_of("ablation", ablation, get_args(EdgeAblation))
    if isinstance(tau, bool) or not isinstance(tau, int | float) or math.isnan(tau) or tau < 0:
        raise BadInput(f"tau is {tau!r}: give a number of at least 0, in the unit of the metric")
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_pairs(lm, clean, corrupt)
    if lm.dtype not in (torch.float32, torch.float64):
        raise BadInput(f"{lm.name} is loaded in {lm.dtype}, whose rounding would decide on edges: load it in float32")
    readout = _readout(lm, clean, metric, positions)
    search = _Search(lm, (clean, corrupt), readout, 1.0 if isinstance(metric, str) else -1.0, ablation)
    grows: Callable[[float], float] = abs if is_absolute else float
    generator = torch.Generator().manual_seed(seed)
    graph, n_done = search.graph, 0
    for slot in reversed(range(graph.n_slots)):
        sources = _ordered(graph.legal[:, slot].nonzero()[:, 0], order, generator)
        if search.is_reached(slot):
            search.visit(slot, sources, lambda change: grows(change) < tau)
        else:
            search.edges[:, slot] = False
        n_done += len(sources)
        progress(n_done, graph.n_edges)
    return Circuit(graph, pruned(graph, search.edges), int(search.edges.sum()))


class _Search:
    """What is kept so far: edges [source slot] bool, and their loss over all prompts.

    Each group of prompts keeps what enters its first layer, what its sources write when they are ablated, and by layer
    what its clean run changes in that.
    """

    def __init__(
        self,
        lm: LanguageModel,
        pair: tuple[Batch, Batch],
        readout: Readout,
        sign: float,
        ablation: EdgeAblation = "corrupt",
    ) -> None:
        clean, corrupt = pair
        shared = None if ablation == "corrupt" else shared_values(lm, corrupt, ablation)
        self.sign = sign
        self.question = Question.of(lm, readout, clean)
        self.graph = self.question.graph
        self.edges = self.graph.legal.clone()
        self.groups: list[tuple[Prompts, Known]] = []
        self.n_items = len(clean)
        wholes, size = [], items_per_group(lm, clean.ids.shape[1], STORED)
        for start in range(0, len(clean), size):
            items = torch.arange(start, min(start + size, len(clean)), device=clean.ids.device)
            both = Pairs.of(self.question, items, clean.select(items), corrupt.select(items))
            now = SourceValues.of(lm, both.clean)
            ids = both.clean.batch.ids
            other = SourceValues.of(lm, both.corrupt) if shared is None else shared.for_each(*ids.shape)
            known = [
                ((z - their_z)[None], (mlp - their_mlp)[None])
                for z, their_z, mlp, their_mlp in zip(now.z, other.z, now.mlps, other.mlps, strict=True)
            ]
            prompts = Prompts(self.question, ids, items, now.stream, AblatedStream.of(lm, other))
            self.groups.append((prompts, known))
            wholes.append(both.read(both.clean))
        self.loss = sign * float(torch.cat(wholes).double().mean())

    def is_reached(self, slot: int) -> bool:
        """Whether a kept edge leaves what is computed from a slot; the logits always count."""
        fed = self.graph.feeds[slot]
        return slot == self.graph.n_slots - 1 or bool(self.edges[fed].any())

    def visit(self, slot: int, sources: list[int], goes: Callable[[float], bool]) -> None:
        """Take away edges into a slot, in the order of their sources, where the change of the loss lets them go."""
        most = min(circuits_at_once(self.question.lm, *prompts.ids.shape) for prompts, _ in self.groups)
        n_done, n_trials = 0, 1
        while n_done < len(sources):
            tried = sources[n_done : n_done + n_trials]
            trials = self.edges.repeat(len(tried), 1, 1)
            for place, source in enumerate(tried):
                trials[place:, source, slot] = False
            n_gone = 0
            for loss in self._losses(trials, self.graph.layer_of_slot(slot)):
                if not goes(loss - self.loss):
                    break
                self.loss, n_gone = loss, n_gone + 1
            self.edges[tried[:n_gone], slot] = False
            all_gone = n_gone == len(tried)
            n_done += n_gone if all_gone else n_gone + 1
            n_trials = min(2 * n_trials, most) if all_gone else 1

    def _losses(self, edges: Tensor, n_known: int) -> list[float]:
        """The loss of each circuit [circuit source slot], where all layers below `n_known` are as in the clean run."""
        lm = self.question.lm
        total = torch.zeros(len(edges), dtype=torch.float64, device=lm.device)
        for prompts, known in self.groups:
            total += CircuitRun(prompts, edges.to(lm.device), known[:n_known]).read().double().sum(dim=0)
        return [self.sign * each for each in (total / self.n_items).tolist()]


def _readout(
    lm: LanguageModel, clean: Batch, metric: str | Readout | Callable[[Tensor], Tensor], positions: Tensor | None
) -> Readout:
    if isinstance(metric, str):
        one_of("metric", metric, ("kl",))
        return kl_from_clean(lm, clean, positions)
    if positions is not None:
        raise BadInput("positions are where the KL divergence is read: a readout says itself where it reads")
    return as_readout(metric)


def _ordered(sources: Tensor, order: Order, generator: torch.Generator) -> list[int]:
    if order == "random":
        return [int(each) for each in sources[torch.randperm(len(sources), generator=generator)]]
    found = [int(each) for each in sources]
    return found[::-1] if order == "late-first" else found
