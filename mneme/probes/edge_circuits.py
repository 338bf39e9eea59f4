"""Circuits of edges: which edges a behavior needs, how few are enough, and what random ones of their number do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor

from mneme.ablated_stream import EdgeAblation
from mneme.arguments import number_between, one_of, whole_number
from mneme.circuit_curves import FRACTIONS
from mneme.circuit_findings import CircuitFindings, shape_of
from mneme.circuit_search import Halves, checked_fractions, circuits_of_sizes, require_gap, selected
from mneme.circuits import SearchMethod
from mneme.edge_scoring import EdgeMethod, Rule, edge_scores
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

WHO = "edge_circuits"
N_PARTS = 5


@probe(
    level="circuit",
    unit="share of the behavior",
    low=None,
    high=None,
    source="Syed et al. 2023; Hanna et al. 2024; Mueller et al. 2025; METHODS 6b-6e",
)
def edge_circuits(  # noqa: PLR0913  how circuits are found, and each of their tests, is a parameter of its own
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    method: EdgeMethod = "eap-ig-inputs",
    steps: int = 5,
    rule: Rule = "midpoint",
    search: SearchMethod = "top-n",
    ablations: Sequence[EdgeAblation] = ("corrupt", "mean", "zero"),
    fractions: Sequence[float] = FRACTIONS,
    least: float = 0.85,
    n_random: int = 20,
    n_knockouts: int = 10,
    n_single: int = 20,
    n_exact_top: int = 50,
    n_exact_random: int = 100,
) -> CircuitFindings:
    """Circuits of many sizes found from edge scores on one half of the prompts, run on the other half.

    Unit:   share of the logit difference that a circuit keeps, between ablating every edge (0) and none (1)
    Range:  unbounded: a circuit may do better than the model, or worse than nothing
    method, steps, rule: how edges are scored, see `edge_scores`; search: `top-n` or `greedy`, see `find_circuit`
    ablations: what edges outside a circuit carry; all controls are measured under the first of them
    fractions: sizes of the circuits as fractions of the graph's edges; least: the share that selects a circuit
    n_random: random circuits of each size; n_knockouts, n_single: knock-outs and single edges of the selected circuit;
              n_exact_top, n_exact_random: edges whose exact effects stand beside their scores. 0 leaves a test out.

    Raises: NotApplicable without pairs or answers, for fewer than two prompts or clusters, where the logit difference
    does not rise by 0.5 at least from corrupt to clean prompts, and where the model's parts are not found; BadInput for
    bad parameters and for pairs that are all the same.
    Source: METHODS 6b (graph), 6c (scores), 6d (extraction, faithfulness, completeness, minimality)
    """
    sizes = checked_fractions(WHO, fractions)
    number_between(f"{WHO}.least", least, 0.0, 1.0)
    kinds = _checked_ablations(ablations)
    one_of(f"{WHO}.search", search, get_args(SearchMethod))
    counts = {"n_random": n_random, "n_knockouts": n_knockouts, "n_single": n_single, "n_exact_top": n_exact_top}
    for name, count in (counts | {"n_exact_random": n_exact_random}).items():
        whole_number(f"{WHO}.{name}", count, 0)
    halves = Halves.of(lm, prompts, probe_seed)
    half, first = halves.discovery, kinds[0]
    assert half.corrupt is not None  # noqa: S101  `Halves.of` checks
    scores = edge_scores(lm, half.clean, half.corrupt, primary_readout(half), method, steps, rule, keep_items=True)
    require_gap(scores.clean, scores.corrupt, half, probe_seed)
    progress(1, N_PARTS, "edges scored")
    circuits = circuits_of_sizes(scores, sizes, search)
    runs: dict[str, Tensor] = {kind: halves.run(circuits, kind) for kind in kinds}
    progress(2, N_PARTS, "circuits run")
    is_selected = selected(circuits, runs[first], least)
    chosen = next((each for each, is_it in zip(circuits, is_selected, strict=True) if is_it), None)
    without = halves.complements(circuits, first)
    tests = halves.quality(chosen, first, n_knockouts, n_single, probe_seed)
    progress(3, N_PARTS, "selected circuit tested")
    tests |= halves.random(circuits, first, n_random, probe_seed)
    progress(4, N_PARTS, "random circuits run")
    tests |= halves.check(scores, n_exact_top, n_exact_random, probe_seed)
    progress(N_PARTS, N_PARTS, "edges checked")
    assert scores.items is not None  # noqa: S101  asked for
    return CircuitFindings(
        shape=shape_of(scores.graph),
        is_discovery=halves.is_discovery,
        matrix=scores.matrix,
        item_scores=scores.items.cpu()[:, scores.graph.legal],
        ends=torch.stack([scores.clean, scores.corrupt], dim=1),
        edges=torch.stack([each.edges.cpu() for each in circuits]),
        n_requested=torch.tensor([each.n_requested for each in circuits]),
        is_selected=is_selected,
        runs=runs,
        without=without,
        **tests,
    )


def _checked_ablations(ablations: object) -> list[EdgeAblation]:
    if not isinstance(ablations, list | tuple) or not ablations or len(set(ablations)) != len(ablations):
        raise BadInput(f"{WHO}.ablations is {ablations!r}: give a list of different ones, such as [corrupt, mean]")
    return [cast(EdgeAblation, one_of(f"{WHO}.ablations", each, get_args(EdgeAblation))) for each in ablations]
