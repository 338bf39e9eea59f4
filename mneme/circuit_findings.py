"""What a search for circuits finds on one behavior, as named arrays: scores, circuits of many sizes, runs, controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph

_RUNS = "runs."


@dataclass(frozen=True)
class CircuitFindings:
    """Circuits found on one half of the prompts (discovery) and run on the other (evaluation).

    shape: the graph (see `graph`). is_discovery [item] bool. matrix [source slot]: edge scores, means over discovery;
    item_scores [discovery edge]: by prompt, edges in the order of the graph; ends [discovery 2]: the readout of the
    clean and the corrupt prompts.
    edges [circuit source slot] bool, n_requested [circuit]: circuits by size; is_selected [circuit]: the smallest that
    keeps enough of the behavior, none where no circuit does.
    runs: by ablation [evaluation 2+circuit], the readout of the model, with every edge ablated, under each circuit.
    What follows is under the first ablation: without [evaluation circuit]: of all edges but the circuit's; random
    [evaluation circuit draw], random_n_edges [circuit draw]: of random circuits of like size, NaN and 0 where a circuit
    has no edges to match; knocked_out [draw]: incompleteness of the selected circuit; minimal_edges [edge 2],
    minimal_cost, minimal_p [edge]: what it loses without single edges.
    checked_edges [edge 2], is_top [edge], checked_items [discovery edge]: exact effects beside the scores.
    """

    shape: Tensor
    is_discovery: Tensor
    matrix: Tensor
    item_scores: Tensor
    ends: Tensor
    edges: Tensor
    n_requested: Tensor
    is_selected: Tensor
    runs: Mapping[str, Tensor]
    without: Tensor
    random: Tensor
    random_n_edges: Tensor
    knocked_out: Tensor
    minimal_edges: Tensor
    minimal_cost: Tensor
    minimal_p: Tensor
    checked_edges: Tensor
    is_top: Tensor
    checked_items: Tensor

    @property
    def graph(self) -> EdgeGraph:
        """The graph whose edges these are."""
        n_heads, n_kv_heads, has_mlps, *is_parallel = self.shape.tolist()
        return EdgeGraph(n_heads, n_kv_heads, tuple(map(bool, is_parallel)), bool(has_mlps))

    @property
    def circuits(self) -> tuple[Circuit, ...]:
        """The circuits that were found, from small to large."""
        graph = self.graph
        return tuple(Circuit(graph, *each) for each in zip(self.edges, self.n_requested.tolist(), strict=True))

    @property
    def n_edges(self) -> Tensor:
        """Edges of each circuit after pruning: [circuit] int64."""
        return self.edges.sum(dim=(1, 2))

    @property
    def selected(self) -> int | None:
        """Which circuit was selected; None where none keeps enough."""
        chosen = self.is_selected.nonzero()[:, 0].tolist()
        return chosen[0] if chosen else None

    def arrays(self) -> dict[str, Tensor]:
        """All as flat named arrays, none in another's memory; a run is `runs.<ablation>`."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "runs"}
        named |= {f"{_RUNS}{ablation}": run for ablation, run in self.runs.items()}
        return {name: array.detach().cpu().clone() for name, array in named.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Tensor]) -> CircuitFindings:
        """The findings out of what `arrays` made; ablations in the order of their names."""
        runs = {name.removeprefix(_RUNS): array for name, array in arrays.items() if name.startswith(_RUNS)}
        return cls(**{name: array for name, array in arrays.items() if not name.startswith(_RUNS)}, runs=runs)


def shape_of(graph: EdgeGraph) -> Tensor:
    """A graph as an array: its heads, its key and value heads, whether it has MLPs, whether each layer is parallel."""
    return torch.tensor([graph.n_heads, graph.n_kv_heads, graph.has_mlps, *graph.is_parallel], dtype=torch.int64)


def share_kept(kept: Tensor, run: Tensor) -> Tensor:
    """Faithfulness of mean readouts: kept [item ...] beside a run [item 2+circuit] on the same prompts: [...] float64.

    (mean kept - mean empty) / (mean whole - mean empty); see `circuit_faithfulness`.
    """
    whole, empty = run[:, 0].double().mean(), run[:, 1].double().mean()
    return (kept.double().mean(dim=0) - empty) / (whole - empty)
