"""What a circuit leaves out, what it holds in vain, and what random circuits of its size do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mneme.ablated_stream import EdgeAblation
from mneme.arguments import number_between, whole_number
from mneme.batch import Batch
from mneme.circuit_faithfulness import Faithfulness, faithfulness
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.random_edges import random_edges
from mneme.readouts import Readout
from mneme.stats import Interval, bootstrap_ratio, permutation_p

LEVEL = 0.05  # of the test that an edge matters more than random ones

Run = Callable[[Sequence[Circuit]], Faithfulness]


@dataclass(frozen=True)
class Completeness:
    """What a circuit leaves out; f as in `faithfulness`, of mean readouts, without bounds.

    complement: f of all edges outside the circuit, near 0 when it holds everything. circuit, model [draw]: f of the
    circuit and of the model, both without the knocked-out edges [draw source slot] of the circuit.
    incompleteness [draw]: |circuit - model|, near 0 when nothing outside takes over.
    """

    complement: float
    circuit: Tensor
    model: Tensor
    knocked_out: Tensor

    @property
    def incompleteness(self) -> Tensor:
        """How far circuit and model lie apart under each knock-out: [draw], at least 0."""
        return (self.circuit - self.model).abs()


@dataclass(frozen=True)
class Minimality:
    """What each tested edge of a circuit costs when it is taken away.

    edges [edge 2]: (source, slot). cost: f of the circuit minus f without the edge, with its interval over prompts;
    negative: the edge hinders. reference [random]: the same for random edges that are put into the circuit and taken
    away again. p_values [edge]: that a random edge matters as much, either way; NaN where no random edge exists.
    """

    edges: Tensor
    cost: Interval
    reference: Tensor
    p_values: Tensor

    @property
    def share(self) -> float:
        """The share of tested edges that matter more than random ones, at p <= 0.05; NaN where none can be tested."""
        known = self.p_values[~self.p_values.isnan()]
        return float((known <= LEVEL).double().mean()) if len(known) else float("nan")


@dataclass(frozen=True)
class Dissociation:
    """Whether each of two behaviors loses more without its own circuit than without the other's.

    a: f of behavior a without circuit b minus f without circuit a, with its interval over prompts; b: the other way
    round. Above 0: the own circuit matters more.
    """

    a: Interval
    b: Interval

    @property
    def is_double(self) -> bool:
        """Whether both intervals lie above 0."""
        return float(self.a.low) > 0 and float(self.b.low) > 0


def complement(circuit: Circuit) -> Circuit:
    """All edges of the graph that a circuit leaves out; not pruned."""
    return _circuit(circuit.graph, circuit.graph.legal & ~circuit.edges.cpu())


def completeness(  # noqa: PLR0913  as `faithfulness`, and how knock-outs are drawn
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    circuit: Circuit,
    *,
    seed: int,
    n_draws: int = 10,
    share: float = 0.5,
    ablation: EdgeAblation = "corrupt",
    progress: Progress = silent,
) -> Completeness:
    """Whether circuit and model do the same when edges of the circuit are knocked out of both.

    Each draw knocks out every edge of the circuit with probability `share`. Nothing is pruned: the knocked-out edges
    alone differ. Source: METHODS 5a, 6d; Wang et al. 2022.
    Raises: BadInput for a circuit without edges, no draw, or a share outside 0 .. 1, and as `faithfulness`.
    """
    whole_number("n_draws", n_draws, 1)
    number_between("share", share, 0.0, 1.0)
    kept = _edges_of(circuit)
    drawn = torch.rand(n_draws, *kept.shape, generator=torch.Generator().manual_seed(seed)) < share
    run = partial(faithfulness, lm, clean_ids, corrupt_ids, readout, ablation=ablation, progress=progress)
    return _without(run, circuit, drawn & kept)


def greedy_completeness(  # noqa: PLR0913  as `faithfulness`, and how knock-outs are searched
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    circuit: Circuit,
    *,
    seed: int,
    n_steps: int = 5,
    n_candidates: int = 10,
    ablation: EdgeAblation = "corrupt",
    progress: Progress = silent,
) -> Completeness:
    """The same for knock-outs that are looked for: step by step the edge that sets circuit and model furthest apart.

    At each step `n_candidates` random edges of the circuit are tried beside those knocked out already. Draw k holds
    k + 1 edges; fewer draws than `n_steps` where the circuit has no more edges. The prompts that choose the edges also
    measure them, so that this is the worst case found, not a test. Source: METHODS 5a; Wang et al. 2022.
    Raises: as `completeness`.
    """
    whole_number("n_steps", n_steps, 1)
    whole_number("n_candidates", n_candidates, 1)
    kept, rng = _edges_of(circuit), np.random.default_rng(seed)
    run = partial(faithfulness, lm, clean_ids, corrupt_ids, readout, ablation=ablation)
    knocked, found = torch.zeros_like(kept), []
    rest: float | None = None
    n_steps = min(n_steps, circuit.n_edges)
    for step in range(n_steps):
        left = (kept & ~knocked).nonzero()
        tried = left[rng.permutation(len(left))[:n_candidates]]
        outcome = _without(run, circuit, torch.stack([_flipped(knocked, edge) for edge in tried]), rest)
        best, rest = int(outcome.incompleteness.argmax()), outcome.complement
        knocked = outcome.knocked_out[best]
        found.append((outcome.circuit[best], outcome.model[best], knocked))
        progress(step + 1, n_steps)
    return Completeness(outcome.complement, *(torch.stack(each) for each in zip(*found, strict=True)))


def minimality(  # noqa: PLR0913  as `faithfulness`, and which edges are drawn
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    circuit: Circuit,
    *,
    seed: int,
    n_tested: int | None = None,
    n_random: int = 100,
    ablation: EdgeAblation = "corrupt",
    progress: Progress = silent,
) -> Minimality:
    """What the circuit loses without each of its edges, beside what it loses without random edges.

    A random edge is one outside the circuit between two of its nodes, so that it could matter, drawn without
    repetition, put into the circuit and taken away again. n_tested: edges of the circuit to test, drawn at random; all
    where None. Nothing is pruned. Source: METHODS 4, 6d; the null follows Shi et al. 2024, with an edge in place of
    a path. Raises: BadInput for a circuit without edges or numbers below 1, and as `faithfulness`.
    """
    whole_number("n_random", n_random, 1)
    if n_tested is not None:
        whole_number("n_tested", n_tested, 1)
    kept, rng = _edges_of(circuit), np.random.default_rng(seed)
    inside, outside = kept.nonzero(), (_between_nodes(circuit) & ~kept).nonzero()
    tested = inside[np.sort(rng.permutation(len(inside))[:n_tested])]
    drawn = outside[rng.permutation(len(outside))[:n_random]]
    changed = [_circuit(circuit.graph, _flipped(kept, edge)) for edge in torch.cat([tested, drawn])]
    found = faithfulness(lm, clean_ids, corrupt_ids, readout, [circuit, *changed], ablation=ablation, progress=progress)
    items, n_tested = found.items.cpu(), len(tested)
    gap = (found.whole - found.empty).cpu()[:, None].expand(-1, n_tested)
    cost = bootstrap_ratio(items[:, :1] - items[:, 1 : 1 + n_tested], gap, seed=seed)
    reference = (found.f[1 + n_tested :] - found.f[0]).cpu()
    p_values = [permutation_p(abs(float(each)), reference.abs()) for each in cost.estimate]
    return Minimality(tested, cost, reference, torch.tensor(p_values, dtype=torch.float64))


def double_dissociation(on_a: Faithfulness, on_b: Faithfulness, *, seed: int) -> Dissociation:
    """Whether two circuits serve two behaviors apart: by cross-ablation, each behavior without each circuit.

    on_a, on_b: what `faithfulness` says of the complements of circuit a and circuit b, in this order, on the prompts
    of behavior a and of behavior b. Edges that both circuits hold hurt both behaviors, and so speak against it.
    Source: METHODS 6e. Raises: BadInput unless each holds exactly two circuits.
    """
    if on_a.items.shape[1] != 2 or on_b.items.shape[1] != 2:
        raise BadInput("double dissociation takes two runs of two circuits: the complements of circuit a and circuit b")
    on_both = ((on_a, on_a.items[:, 1] - on_a.items[:, 0]), (on_b, on_b.items[:, 0] - on_b.items[:, 1]))
    gaps = [(found.whole - found.empty).cpu() for found, _ in on_both]
    return Dissociation(
        *(bootstrap_ratio(lost.cpu(), gap, seed=seed) for (_, lost), gap in zip(on_both, gaps, strict=True))
    )


def random_circuits(graph: EdgeGraph, n_edges: int, n_draws: int, seed: int) -> list[Circuit]:
    """Circuits of random edges, pruned, with as close to `n_edges` edges as can be: see their n_edges, n_requested.

    Same seed, same circuits. Source: METHODS 6e. Raises: BadInput for sizes the graph has not.
    """
    whole_number("n_edges", n_edges, 1, graph.n_edges)
    whole_number("n_draws", n_draws, 1)
    rng = np.random.default_rng(seed)
    return [Circuit(graph, random_edges(graph, n_edges, rng), n_edges) for _ in range(n_draws)]


def _without(run: Run, circuit: Circuit, knocked_out: Tensor, rest: float | None = None) -> Completeness:
    """Circuit and model without edges [draw source slot] of the circuit, and the rest of the model alone.

    rest: f of that rest where it is known, so that it is not run again.
    """
    graph, kept = circuit.graph, circuit.edges.cpu()
    both = [_circuit(graph, edges & ~each) for edges in (kept, graph.legal) for each in knocked_out]
    f = run(both if rest is not None else [*both, complement(circuit)]).f.cpu()
    n_draws = len(knocked_out)
    left = float(f[-1]) if rest is None else rest
    return Completeness(left, f[:n_draws], f[n_draws : 2 * n_draws], knocked_out)


def _between_nodes(circuit: Circuit) -> Tensor:
    """Edges of the graph that join nodes of a circuit, input and logits included: [source slot] bool."""
    graph, alive = circuit.graph, circuit.nodes.cpu()
    reads = graph.feeds.float() @ alive.float() > 0
    alive, reads = alive.clone(), reads.clone()
    alive[0] = reads[-1] = True
    return graph.legal & alive[:, None] & reads


def _edges_of(circuit: Circuit) -> Tensor:
    if circuit.n_edges == 0:
        raise BadInput("the circuit has no edges, so nothing can be knocked out of it: ask for more edges")
    return circuit.edges.cpu()


def _flipped(edges: Tensor, edge: Tensor) -> Tensor:
    """Edges with one (source, slot) put in, or taken away where it was in."""
    source, slot = edge.tolist()
    changed = edges.clone()
    changed[source, slot] = ~changed[source, slot]
    return changed


def _circuit(graph: EdgeGraph, edges: Tensor) -> Circuit:
    """A circuit that is taken as it is: as many edges as are asked for."""
    return Circuit(graph, edges, int(edges.sum()))
