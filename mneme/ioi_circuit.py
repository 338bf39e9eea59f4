"""How well heads explain indirect objects: what circuits of them keep up, whether they are complete and minimal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mneme.controls import Head
from mneme.ioi_classes import ACTS_AT, ROLES, nodes_of
from mneme.knock_out import EMPTY, WHOLE, Kept, Node

Run = Callable[[Sequence[Kept]], Tensor]  # circuits -> the readout of every prompt [item circuit]


@dataclass(frozen=True)
class Search:
    """How the sets K that completeness and minimality need are sought: sampled sets, greedy steps, seed."""

    n_sampled: int
    n_greedy: int
    seed: int


def remembering(run: Run) -> Run:
    """The same, with every circuit run once, however often it is asked for."""
    known: dict[tuple[frozenset[Node], bool], Tensor] = {}

    def ask(circuits: Sequence[Kept]) -> Tensor:
        keys = [(frozenset(each.nodes), each.is_all_but) for each in circuits]
        new = {key: each for key, each in zip(keys, circuits, strict=True) if key not in known}
        if new:
            known.update(zip(new, run(list(new.values())).unbind(dim=1), strict=True))
        return torch.stack([known[key] for key in keys], dim=1)

    return ask


def random_circuits(nodes: Sequence[Node], n_heads: int, n_draws: int, seed: int) -> list[Kept]:
    """Circuits of other heads: each layer's heads are permuted, so that every layer and position keeps its count.

    A draw may hold heads of the circuit; the circuit itself is never drawn. Fewer than `n_draws` where few exist.
    """
    rng, tested = np.random.default_rng(seed), frozenset(nodes)
    found: dict[frozenset[Node], None] = {}
    for _ in range(20 * n_draws):
        if len(found) == n_draws:
            break
        order = {layer: rng.permutation(n_heads) for layer in sorted({node[0] for node in nodes})}
        drawn = frozenset((layer, int(order[layer][head]), label) for layer, head, label in nodes)
        if drawn != tested:
            found.setdefault(drawn)
    return [Kept(tuple(sorted(each))) for each in found]


def greedy_removals(run: Run, nodes: Sequence[Node], n_steps: int) -> list[Node]:
    """Nodes of the circuit in the order in which their removal makes |F(C without K) - F(M without K)| largest.

    F is the mean of the readout. Source: METHODS 5a (completeness over greedily chosen K).
    """
    chosen: list[Node] = []
    for _ in range(min(n_steps, len(nodes))):
        left = [node for node in nodes if node not in chosen]
        pairs = [base.without([*chosen, node]) for node in left for base in (Kept(tuple(nodes)), WHOLE)]
        mean = run(pairs).double().mean(dim=0).reshape(-1, 2)
        chosen.append(left[int((mean[:, 0] - mean[:, 1]).abs().argmax())])
    return chosen


def sampled_removals(nodes: Sequence[Node], n_draws: int, seed: int) -> list[tuple[Node, ...]]:
    """Random sets of nodes of the circuit, each node in or out with equal chance."""
    rng = np.random.default_rng(seed)
    return [tuple(node for node in nodes if rng.integers(2)) for _ in range(n_draws)]


def incompleteness(run: Run, nodes: Sequence[Node], removals: Sequence[Sequence[Node]]) -> Tensor:
    """F(M without K) - F(C without K) of every prompt, for every K: [item removal], 0 = the circuit is complete.

    Source: METHODS 5a
    """
    pairs = [base.without(removed) for removed in removals for base in (WHOLE, Kept(tuple(nodes)))]
    found = run(pairs)
    return found[:, 0::2] - found[:, 1::2]


def best_contexts(run: Run, nodes: Sequence[Node], classes: Mapping[str, list[Head]], search: Search) -> list[Kept]:
    """For every node, the circuit without the K in which its removal moves the mean readout most: one for each node.

    K is nothing, the node's whole class but itself, or one of a few random sets of the circuit, the same for all nodes,
    without the node.
    Source: METHODS 5a (minimality: max over K of |F(C without K and v) - F(C without K)|)
    """
    circuit = Kept(tuple(nodes))
    sampled = sampled_removals(nodes, search.n_sampled, search.seed)
    found = []
    for node in nodes:
        like = [each for each in nodes if each != node and each in _class_mates(node, classes)]
        sets = [(), tuple(like), *(tuple(each for each in drawn if each != node) for drawn in sampled)]
        contexts = [circuit.without(removed) for removed in dict.fromkeys(sets)]
        mean = run([each for context in contexts for each in (context, context.without([node]))]).double().mean(dim=0)
        moved = (mean[0::2] - mean[1::2]).abs()
        found.append(contexts[int(moved.argmax())])
    return found


def _class_mates(node: Node, classes: Mapping[str, list[Head]]) -> set[Node]:
    mine = [role for role in ROLES if node[:2] in classes[role] and ACTS_AT[role] == node[2]]
    return {(*head, ACTS_AT[role]) for role in mine for head in classes[role]}


def removal_costs(run: Run, nodes: Sequence[Node], contexts: Sequence[Kept]) -> Tensor:
    """F(C without K) - F(C without K and v) of every prompt, for every node v in its context: [item node]."""
    found = run([each for node, kept in zip(nodes, contexts, strict=True) for each in (kept, kept.without([node]))])
    return found[:, 0::2] - found[:, 1::2]


def circuits_compared(classes: Mapping[str, list[Head]], naive: tuple[str, ...]) -> dict[str, Kept]:
    """What is run: the model, the circuit, the naive one, no head, all but the movers, all but the circuit."""
    nodes = nodes_of(classes)
    return {
        "whole": WHOLE,
        "circuit": Kept(nodes),
        "naive": Kept(nodes_of(classes, naive)),
        "empty": EMPTY,
        "without_movers": WHOLE.without(nodes_of(classes, ("name_mover",))),
        "without_circuit": WHOLE.without(nodes),
    }
