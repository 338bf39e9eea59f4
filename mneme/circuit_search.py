"""Circuits found on one half of the prompts and put to the test on the other: runs, random circuits, single edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.ablated_stream import EdgeAblation
from mneme.arguments import number_between
from mneme.circuit_curves import sizes_of
from mneme.circuit_faithfulness import faithfulness
from mneme.circuit_findings import share_kept
from mneme.circuit_overlap import smallest_faithful
from mneme.circuit_quality import complement, completeness, minimality, random_circuits
from mneme.circuits import Circuit, SearchMethod, find_circuit
from mneme.edge_checks import check_edges
from mneme.edge_scoring import EdgeScores
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import split_items
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.promptset import Promptset
from mneme.stats import bootstrap_mean

Arrays = dict[str, Tensor]
LEAST_GAP = 0.5  # logits; METHODS 3: there is nothing to explain below


def checked_fractions(who: str, fractions: object) -> tuple[float, ...]:
    """Sizes of circuits as fractions of the graph's edges: raises BadInput unless two at least grow within 0 .. 1."""
    if not isinstance(fractions, list | tuple) or len(fractions) < 2:
        raise BadInput(f"{who}.fractions is {fractions!r}: give a list of at least two, such as [0.01, 0.1, 1.0]")
    found = [1.0 if each == 1 else number_between(f"{who}.fractions", each, 0.0, 1.0) for each in fractions]
    if sorted(set(found)) != found or found[0] == 0:
        raise BadInput(f"{who}.fractions is {fractions!r}: let them grow from above 0 to at most 1")
    return tuple(found)


def require_gap(clean: Tensor, corrupt: Tensor, prompts: Promptset, seed: int) -> None:
    """Refuse prompts on which there is nothing to explain, or whose readout does not say which way is better.

    clean, corrupt [item]: the logit difference of the model. Raises: NotApplicable unless it rises by 0.5 logits at
    least from corrupt to clean prompts, with a 95 % interval above 0. Source: METHODS 3, 6d (reject)
    """
    clusters = None if prompts.clusters is None else prompts.clusters.numpy()
    found = bootstrap_mean((clean - corrupt).double().cpu().numpy(), seed=seed, clusters=clusters)
    said = (
        f"from corrupt to clean prompts the logit difference changes by {float(found.estimate):.3g} "
        f"[{float(found.low):.3g}, {float(found.high):.3g}]"
    )
    if found.high < 0:
        raise NotApplicable(f"{said}: it falls, so that a circuit that keeps it would keep a mistake")
    if not (found.low > 0 and found.estimate >= LEAST_GAP):
        raise NotApplicable(f"{said}, so there is nothing to explain: it must rise by {LEAST_GAP}, interval above 0")


@dataclass(frozen=True)
class Halves:
    """A model with the prompts on which circuits are found, and those on which they are run."""

    lm: LanguageModel
    is_discovery: Tensor
    discovery: Promptset
    evaluation: Promptset

    @classmethod
    def of(cls, lm: LanguageModel, prompts: Promptset, seed: int) -> Halves:
        """A random half each, clusters kept whole; raises NotApplicable without pairs, answers, or two clusters."""
        if prompts.corrupt is None:
            raise NotApplicable("circuits need clean and corrupt prompts, and this promptset has no corrupt ones")
        if prompts.correct_ids is None or prompts.wrong_ids is None:
            raise NotApplicable("circuits need prompts with correct and wrong answers, and this promptset has none")
        first = split_items(prompts, seed)
        return cls(lm, first, *(prompts.select(each.nonzero()[:, 0]) for each in (first, ~first)))

    def run(self, circuits: Sequence[Circuit], ablation: EdgeAblation) -> Tensor:
        """Readouts of the evaluation prompts: of the model, with every edge ablated, under each: [item 2+circuit]."""
        pairs = self.evaluation
        assert pairs.corrupt is not None  # noqa: S101  `of` checks
        readout = primary_readout(pairs)
        found = faithfulness(self.lm, pairs.clean, pairs.corrupt, readout, circuits, ablation=ablation)
        return torch.cat([found.whole[:, None], found.empty[:, None], found.items], dim=1)

    def complements(self, circuits: Sequence[Circuit], ablation: EdgeAblation) -> Tensor:
        """Readouts with all edges but those of each circuit: [item circuit]."""
        return self.run([complement(each) for each in circuits], ablation)[:, 2:]

    def random(self, circuits: Sequence[Circuit], ablation: EdgeAblation, n_draws: int, seed: int) -> Arrays:
        """Readouts under random circuits of each one's size; NaN where a circuit has no edges, or all."""
        n_edges = torch.zeros(len(circuits), n_draws, dtype=torch.int64)
        items = torch.full((len(self.evaluation), len(circuits), n_draws), torch.nan, dtype=torch.float64)
        for place, circuit in enumerate(circuits):
            if n_draws and 0 < circuit.n_edges < circuit.graph.n_edges:
                drawn = random_circuits(circuit.graph, circuit.n_edges, n_draws, seed + place)
                items[:, place] = self.run(drawn, ablation)[:, 2:].double().cpu()
                n_edges[place] = torch.tensor([each.n_edges for each in drawn])
        return {"random": items, "random_n_edges": n_edges}

    def quality(
        self, circuit: Circuit | None, ablation: EdgeAblation, n_knockouts: int, n_single: int, seed: int
    ) -> Arrays:
        """What knock-outs do to one circuit, and what single edges cost it; empty where there is none to test."""
        pairs, empty = self.evaluation, torch.empty(0, dtype=torch.float64)
        found = {"knocked_out": empty, "minimal_edges": torch.empty(0, 2, dtype=torch.int64)}
        found |= {"minimal_cost": empty, "minimal_p": empty}
        if circuit is None or pairs.corrupt is None:
            return found
        asked = (self.lm, pairs.clean, pairs.corrupt, primary_readout(pairs), circuit)
        if n_knockouts:
            knocked = completeness(*asked, seed=seed, n_draws=n_knockouts, ablation=ablation)
            found["knocked_out"] = knocked.incompleteness.double()
        if n_single:
            single = minimality(*asked, seed=seed, n_tested=n_single, n_random=n_single, ablation=ablation)
            cost = torch.from_numpy(single.cost.estimate)
            found |= {"minimal_edges": single.edges, "minimal_cost": cost, "minimal_p": single.p_values}
        return found

    def check(self, scores: EdgeScores, n_top: int, n_random: int, seed: int) -> Arrays:
        """Exact effects of the edges that score most and of random ones, on the discovery prompts."""
        pairs = self.discovery
        if not n_top or pairs.corrupt is None:
            none = torch.empty(0, 2, dtype=torch.int64)
            items = torch.empty(len(pairs), 0, dtype=torch.float64)
            return {"checked_edges": none, "is_top": torch.empty(0, dtype=torch.bool), "checked_items": items}
        asked = (self.lm, pairs.clean, pairs.corrupt, primary_readout(pairs), scores)
        found = check_edges(*asked, n_top=n_top, n_random=n_random, seed=seed)
        return {"checked_edges": found.edges, "is_top": found.is_top, "checked_items": found.items.double()}


def circuits_of_sizes(scores: EdgeScores, fractions: tuple[float, ...], search: SearchMethod) -> list[Circuit]:
    """A circuit for each fraction of the graph's edges, without the sizes that small graphs name twice."""
    sizes = dict.fromkeys(sizes_of(scores.graph.n_edges, fractions))
    return [find_circuit(scores, size, search) for size in sizes]


def selected(circuits: Sequence[Circuit], run: Tensor, least: float) -> Tensor:
    """Which circuit is the smallest that keeps `least` of the behavior: [circuit] bool, at most one, never the model.

    run [item 2+circuit]: see `Halves.run`. Source: METHODS 6e.
    """
    parts = [place for place, each in enumerate(circuits) if 0 < each.n_edges < each.graph.n_edges]
    is_selected = torch.zeros(len(circuits), dtype=torch.bool)
    if parts:
        f = share_kept(run[:, [2 + place for place in parts]], run).cpu()
        best = smallest_faithful(f, torch.tensor([circuits[place].n_edges for place in parts]), least=least)
        if best is not None:
            is_selected[parts[best]] = True
    return is_selected
