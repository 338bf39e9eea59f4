"""ACDC over its threshold: how many edges stay, how far predictions move, and which edges of a reference are found."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.ablated_stream import EdgeAblation
from mneme.acdc import acdc as circuit_of
from mneme.acdc_sweep import Recovery, ranked_area, recovery, thresholds
from mneme.arguments import number_between, one_of, whole_number
from mneme.circuit_curves import FRACTIONS
from mneme.circuit_faithfulness import faithfulness
from mneme.circuit_quality import random_circuits
from mneme.circuit_search import Halves, circuits_of_sizes, require_gap, selected
from mneme.circuits import Circuit, find_circuit
from mneme.curve import Curve, among_all
from mneme.edge_scoring import EdgeScores, edge_scores
from mneme.errors import NotApplicable
from mneme.kl_readout import kl_from_clean
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

Metric = Literal["kl", "answer"]


@probe(
    level="curve",
    unit="nats",
    low=None,
    high=None,
    curves={
        "kl": ("tau", "nats", None, None),
        "kl_of_scores": ("tau", "nats", None, None),
        "kl_of_random": ("tau", "nats", None, None),
        "edges_kept": ("tau", "fraction of edges", 0.0, 1.0),
        "recovered": ("tau", "fraction of edges", 0.0, 1.0),
        "false_alarms": ("tau", "fraction of edges", 0.0, 1.0),
        "recovery_area": ("reference_edges", "area", 0.0, 1.0),
        "recovery_area_of_scores": ("reference_edges", "area", 0.0, 1.0),
    },
    source="Conmy et al. 2023; METHODS 7",
)
def acdc(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    metric: Metric = "kl",
    ablation: EdgeAblation = "corrupt",
    n_taus: int = 21,
    least_tau: float = 1e-5,
    most_tau: float = 1.0,
    least: float = 0.85,
    n_random: int = 20,
) -> dict[str, Curve]:
    """ACDC at thresholds from fine to coarse, beside edge scores and random circuits of as many edges.

    Circuits are found on one half of the prompts; divergences are those of the other half, NaN for the prompts that
    found them. x is tau, in nats for `kl` and in logits for `answer`.
    kl: how far the predictions of the circuit lie from the model's at the last position, KL in nats (at least 0, up to
    rounding); kl_of_scores: of the circuit of as many edges that EAP-IG finds; kl_of_random: the mean over `n_random`
    random circuits, NaN where a circuit has no edges or all.
    edges_kept: the share of the graph's edges. recovered, false_alarms: the shares of the reference's edges, and of all
    others, that stay. The reference is the smallest circuit of largest exact effects (every edge run alone, on the
    prompts that find) that keeps `least` of the logit difference on the other half, whatever `ablation` says: its edges
    carry corrupt values, as those of the scores do.
    recovery_area: under the curve of recovered over false alarms; x is how many edges the reference has.
    recovery_area_of_scores: of the ranking of all edges by EAP-IG.
    metric: what must not grow by tau when an edge goes: `kl`, or the logit difference of the answers turned round
    (`answer`). ablation: what edges that went carry while circuits are found, and in all divergences.
    One number holds for all prompts where it is one of circuits; its interval then says nothing.

    Costs a run of the model from the slot on for every edge and threshold: for small models.
    Raises: NotApplicable as `edge_circuits`, and where no circuit of exact effects keeps enough; BadInput for bad
    parameters and pairs that are all the same.
    Source: METHODS 7. Departs from it: one order of edges, the latest sources first.
    """
    one_of("acdc.metric", metric, get_args(Metric))
    one_of("acdc.ablation", ablation, get_args(EdgeAblation))
    number_between("acdc.least", least, 0.0, 1.0)
    whole_number("acdc.n_random", n_random, 1)
    taus = thresholds(n_taus, least_tau, most_tau)
    halves = Halves.of(lm, prompts, probe_seed)
    half = halves.discovery
    assert half.corrupt is not None  # noqa: S101  `Halves.of` checks
    readout = primary_readout(half)
    scores = edge_scores(lm, half.clean, half.corrupt, readout, "eap-ig-inputs")
    require_gap(scores.clean, scores.corrupt, half, probe_seed)
    reference = _reference(halves, least)
    progress(1, n_taus + 1, "every edge run alone")
    asked = {"metric": "kl" if metric == "kl" else readout, "ablation": ablation}
    circuits = []
    for tau in taus.tolist():
        circuits.append(circuit_of(lm, half.clean, half.corrupt, tau=tau, **asked))  # type: ignore[arg-type]
        progress(len(circuits) + 1, n_taus + 1, f"tau {tau:.2g}")
    known = _divergences(halves, circuits, scores, (ablation, n_random, probe_seed))
    rates = _rates(halves, circuits, recovery(circuits, reference))
    area = ranked_area(scores.graph, scores.matrix.abs(), reference)
    curves = {name: Curve(taus, values) for name, values in (known | rates[0]).items()}
    x = torch.tensor([reference.n_edges], dtype=torch.float64)
    ends = {"recovery_area": rates[1], "recovery_area_of_scores": area}
    return curves | {name: Curve(x, _for_tested(halves, torch.tensor([each]))) for name, each in ends.items()}


def _reference(halves: Halves, least: float) -> Circuit:
    """The smallest circuit of largest exact effects that keeps enough of the behavior on the other prompts."""
    half = halves.discovery
    assert half.corrupt is not None  # noqa: S101  `Halves.of` checks
    exact = edge_scores(halves.lm, half.clean, half.corrupt, primary_readout(half), "exact")
    circuits = circuits_of_sizes(exact, FRACTIONS, "top-n")
    chosen: list[int] = selected(circuits, halves.run(circuits, "corrupt"), least).nonzero()[:, 0].tolist()
    if not chosen:
        raise NotApplicable(
            f"no circuit of largest exact effects keeps {least} of the behavior, so that there is no reference to find"
        )
    return circuits[chosen[0]]


def _divergences(
    halves: Halves, circuits: list[Circuit], scores: EdgeScores, how: tuple[EdgeAblation, int, int]
) -> dict[str, Tensor]:
    """KL on the prompts that found nothing, of circuits, of as many best scores, and of random ones: [item tau]."""
    ablation, n_random, seed = how
    pairs = halves.evaluation
    assert pairs.corrupt is not None  # noqa: S101  `Halves.of` checks
    readout = kl_from_clean(halves.lm, pairs.clean)
    of_scores = [find_circuit(scores, each.n_edges) for each in circuits]
    random: list[list[Circuit]] = []
    for place, each in enumerate(circuits):
        is_part = 0 < each.n_edges < each.graph.n_edges
        random.append(random_circuits(each.graph, each.n_edges, n_random, seed + place) if is_part else [])
    run = [*circuits, *of_scores, *(each for drawn in random for each in drawn)]
    items = faithfulness(halves.lm, pairs.clean, pairs.corrupt, readout, run, ablation=ablation).items
    nothing = items.new_full((len(items),), torch.nan)
    start, means = 2 * len(circuits), []
    for drawn in random:
        means.append(items[:, start : start + len(drawn)].mean(dim=1) if drawn else nothing)
        start += len(drawn)
    first, second = items[:, : len(circuits)], items[:, len(circuits) : 2 * len(circuits)]
    found = {"kl": first, "kl_of_scores": second, "kl_of_random": torch.stack(means, dim=1)}
    return {name: _for_tested(halves, values) for name, values in found.items()}


def _rates(halves: Halves, circuits: list[Circuit], found: Recovery) -> tuple[dict[str, Tensor], float]:
    kept = torch.tensor([each.n_edges / each.graph.n_edges for each in circuits])
    named = {"edges_kept": kept, "recovered": found.true, "false_alarms": found.false_alarms}
    return {name: _for_tested(halves, values) for name, values in named.items()}, found.area


def _for_tested(halves: Halves, values: Tensor) -> Tensor:
    """Values of the prompts that found nothing [item point] or of all of them [point]: [item point], others NaN."""
    is_tested = ~halves.is_discovery
    return among_all(values.cpu().expand(int(is_tested.sum()), -1), is_tested)
