"""How much of a model's behavior a circuit keeps, when all other edges carry what they do in an ablation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from mneme.ablated_stream import AblatedStream, EdgeAblation, SourceValues, shared_values
from mneme.arguments import one_of
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.circuit_runs import CircuitRun, Prompts, circuits_at_once
from mneme.circuits import Circuit
from mneme.edge_gradients import Question
from mneme.edge_scoring import check_pairs
from mneme.errors import BadInput
from mneme.head_entries import stream_input
from mneme.layer_runs import read_stream
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout, read_hidden, take_rows
from mneme.restart import record_baseline
from mneme.stats import bootstrap_mean

STORED = 16  # tensors a layer that are kept of each prompt: a baseline and the ablated stream


@dataclass(frozen=True)
class Faithfulness:
    """How faithful circuits are: f [circuit] float64, with the readouts that it comes from.

    f = (m(circuit) - m(empty)) / (m(whole) - m(empty)), m the mean over the prompts: 1 keeps all, 0 nothing; it may lie
    beyond both. items [item circuit]: the readout under each circuit; whole, empty [item]: of the model as it is, and
    with every edge ablated. n_edges, n_requested [circuit] int64: delivered, and asked for before pruning.
    """

    f: Tensor
    items: Tensor
    whole: Tensor
    empty: Tensor
    n_edges: Tensor
    n_requested: Tensor


@torch.no_grad()
def faithfulness(  # noqa: PLR0913  the stable signature, plus what long runs need
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    circuits: Sequence[Circuit],
    *,
    ablation: EdgeAblation = "corrupt",
    progress: Progress = silent,
) -> Faithfulness:
    """Run the clean prompts with only the edges of each circuit; all others carry ablated values.

    ablation: what an edge that is not kept carries: its source in the corrupt prompt (`corrupt`), the mean of its
    source over the corrupt prompts by position (`mean`), or nothing (`zero`; biases stay).
    Every slot reads the ablated stream plus, for each kept edge, what its source writes in this run minus its ablated
    value; layers are swept in order. A norm after attention belongs to the sum of the heads. All circuits share one
    clean and one ablated run and are stacked on the batch axis. A circuit without edges has f = 0, one with all f = 1.
    Not checked: that m(whole) - m(empty) differs from 0; see `check_gap`. Source: METHODS 6d; Hanna et al. 2024.
    Raises: BadInput for no circuit, one of another graph, pairs that do not align or are all the same; NotApplicable
    where the model's parts are not found.
    """
    one_of("ablation", ablation, get_args(EdgeAblation))
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_pairs(lm, clean, corrupt)
    question = Question.of(lm, as_readout(readout), clean)
    _check_circuits(question, circuits)
    edges = torch.stack([each.edges for each in circuits]).to(lm.device)
    shared = None if ablation == "corrupt" else shared_values(lm, corrupt, ablation)
    n_tokens = clean.ids.shape[1]

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=clean.ids.device)
        return _read(question, items, (clean.select(some), corrupt.select(some)), shared, edges)

    at_most = items_per_group(lm, n_tokens, STORED)
    found = in_batches(lm, len(clean), n_tokens, run, progress, at_most=at_most).double()
    whole, empty, items = found[:, 0], found[:, 1], found[:, 2:]
    f = (items.mean(dim=0) - empty.mean()) / (whole.mean() - empty.mean())
    n_edges = torch.tensor([each.n_edges for each in circuits])
    return Faithfulness(f, items, whole, empty, n_edges, torch.tensor([each.n_requested for each in circuits]))


def check_gap(whole: Tensor, empty: Tensor, *, seed: int) -> None:
    """Refuse prompts on which the ablation changes nothing that can be told from 0: raises BadInput.

    whole, empty [item]: the readout of the model and with every edge ablated. Asks that the 95% bootstrap interval of
    the mean difference leaves out 0, since faithfulness divides by it. Source: METHODS 6d.
    """
    interval = bootstrap_mean(np.asarray((whole - empty).cpu()), seed=seed)
    low, high = float(interval.low), float(interval.high)
    if not (low > 0 or high < 0):
        raise BadInput(
            f"the ablation of every edge changes the readout by {low:.3g} to {high:.3g}, which may be nothing: "
            "take more prompts, or corrupt prompts that differ in what the readout asks"
        )


def _check_circuits(question: Question, circuits: Sequence[Circuit]) -> None:
    if not circuits:
        raise BadInput("no circuit is given: give at least one")
    for place, circuit in enumerate(circuits):
        if circuit.graph != question.graph:
            name = question.lm.name
            raise BadInput(f"circuit {place} is of another graph than that of {name}: find it from its edge scores")


def _read(
    question: Question, items: Tensor, pair: tuple[Batch, Batch], shared: SourceValues | None, edges: Tensor
) -> Tensor:
    """Readouts of some prompts: of the model, with every edge ablated, then under each circuit [item 2+circuit]."""
    lm, where = question.lm, question.where
    clean, corrupt = pair
    hidden = take_rows(lm.backbone.hidden(clean.ids), items, where)
    whole = read_hidden(lm, question.readout, hidden, items, where)
    if shared is None:
        values = SourceValues.of(lm, record_baseline(lm, corrupt, lambda *_: None, with_mlps=True))
    else:
        values = shared.for_each(*clean.ids.shape)
    ablated = AblatedStream.of(lm, values)
    empty = read_stream(lm, clean.ids, ablated.leaving, question.readout, items, where)
    prompts = Prompts(question, clean.ids, items, stream_input(lm, clean.ids), ablated)
    n_kept, n_legal = edges.sum(dim=(1, 2)), question.graph.n_edges
    found = torch.where(n_kept[None] == n_legal, whole[:, None], empty[:, None])
    between = ((n_kept > 0) & (n_kept != n_legal)).nonzero()[:, 0]
    size = circuits_at_once(lm, *clean.ids.shape)
    for start in range(0, len(between), size):
        some = between[start : start + size]
        found[:, some] = CircuitRun(prompts, edges[some]).read()
    return torch.cat([whole[:, None], empty[:, None], found], dim=1)
