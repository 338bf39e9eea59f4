"""The circuit of indirect objects: its heads by class, and how well they explain the behavior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mneme.arguments import number_between, whole_number
from mneme.controls import Head
from mneme.curve import Curve, among_all
from mneme.errors import NotApplicable
from mneme.head_order import split_items
from mneme.ioi_circuit import (
    Run,
    Search,
    best_contexts,
    circuits_compared,
    greedy_removals,
    incompleteness,
    random_circuits,
    remembering,
    removal_costs,
    sampled_removals,
)
from mneme.ioi_classes import (
    ACTS_AT,
    LABELS,
    NAIVE,
    ROLES,
    Least,
    Member,
    abc_of,
    classes_of,
    find_evidence,
    members_of,
    mover_tests,
    nodes_of,
)
from mneme.knock_out import EMPTY, Kept, TemplateMeans, instead_of_heads, knock_out, template_means, templates_of
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

OF_MEMBERS = ("role", "layer", "head", "score", "least")


@probe(
    level="curve",
    unit="logits",
    low=None,
    high=None,
    curves={
        "whole": ("n_heads", "logits", None, None),
        "circuit": ("n_heads", "logits", None, None),
        "naive": ("n_heads", "logits", None, None),
        "empty": ("n_heads", "logits", None, None),
        "circuit_resample": ("n_heads", "logits", None, None),
        "circuit_zero": ("n_heads", "logits", None, None),
        "empty_resample": ("n_heads", "logits", None, None),
        "empty_zero": ("n_heads", "logits", None, None),
        "without_movers": ("n_heads", "logits", None, None),
        "without_circuit": ("n_heads", "logits", None, None),
        "random_circuits": ("n_heads", "logits", None, None),
        "incompleteness_greedy": ("n_removed", "logits", None, None),
        "incompleteness_sampled": ("draw", "logits", None, None),
        "minimality": ("rank", "logits", None, None),
        "role": ("rank", "class", 1.0, 7.0),
        "layer": ("rank", "layer", 0.0, None),
        "head": ("rank", "head", 0.0, None),
        "score": ("rank", "fraction", None, None),
        "least": ("rank", "fraction", 0.0, 2.0),
        "class_size": ("class", "heads", 0.0, None),
        "mover_tests": ("test", "heads", 0.0, None),
    },
    source="Wang et al. 2022; METHODS 5a",
)
def ioi_circuit(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    least_effect: float = 0.05,
    least_attention: float = 0.3,
    least_copying: float = 0.5,
    least_shift: float = 0.05,
    least_accuracy: float = 0.9,
    n_draws: int = 20,
    n_sampled: int = 10,
    n_greedy: int = 4,
) -> dict[str, Curve]:
    """The logit difference F that heads of each class keep up while all others write their mean over ABC.

    Shape:  curves [item point], NaN for the prompts on which the classes and the sets K were chosen; the curves of the
            classes themselves hold one number for those, and NaN for the others
    Unit:   logits. `whole` F(M), `circuit` F(C), `naive` F of the classes without backups and negative movers, `empty`
            no head, `without_movers`, `without_circuit` M without them, `random_circuits` the mean of `n_draws`
            circuits of other heads, each at the number of heads that it keeps. Faithfulness is |F(M) - F(C)|.
            `..._resample`, `..._zero`: heads that are out write what they write on the prompt's own ABC prompt, or 0
    `incompleteness_greedy` F(M without K) - F(C without K) at each step of a greedily grown K; `.._sampled` for random
            K; `minimality` what each head's removal, where its class acts, costs in the K where it costs most
    `role`, `layer`, `head`, `score`, `least`: the heads of the classes by rank, a head once for each of its classes;
            role 1 .. 7 in the order name mover, negative mover, backup, S-inhibition, induction, duplicate token,
            previous token; what it scores on its class's test, and from what on that is passed, see
            `mneme.ioi_classes.members_of`; `class_size` heads by class, in that order
    `mover_tests` heads that pass each test of a name mover: they write for the answer, follow their attention, copy,
            look at the indirect object; where none passes all, no movers can be left out: `without_movers` is NaN
    least_...: from what on a test is passed, see `mneme.ioi_classes.Least`; a mover's copying counts where its circuit
            has fixed weights. least_accuracy: below this share of prompts with F > 0 there is no behavior to explain
    Where no head passes any test, the curves of the circuit are those of no head, and those over its heads have one
            point of NaN. Where no class acts at the last position, nothing that is kept reaches it: the circuit, the
            naive one and random ones are then worth what no head is.
    Raises: NotApplicable for another promptset, or a model that answers too few prompts; BadInput for a bad parameter
    Source: METHODS 5a (means per template and position, heads at the position where their class acts). Departs from it:
            classes and K are chosen on one half of the templates and everything is measured on the other
    """
    least = Least(
        number_between("ioi_circuit.least_effect", least_effect, 0.0, 1.0),
        number_between("ioi_circuit.least_attention", least_attention, 0.0, 1.0),
        number_between("ioi_circuit.least_copying", least_copying, 0.0, 1.0),
        number_between("ioi_circuit.least_shift", least_shift, 0.0, 2.0),
    )
    search = Search(
        whole_number("ioi_circuit.n_sampled", n_sampled, 1),
        whole_number("ioi_circuit.n_greedy", n_greedy, 1),
        probe_seed,
    )
    n_draws = whole_number("ioi_circuit.n_draws", n_draws, 1)
    means = template_means(lm, abc_of(prompts), templates_of(prompts, LABELS))
    _require_behavior(lm, prompts, means, number_between("ioi_circuit.least_accuracy", least_accuracy, 0.0, 1.0))
    chosen_on = split_items(prompts, probe_seed)
    choosing = _running(lm, prompts.select(chosen_on), means.select(chosen_on))
    testing = _running(lm, prompts.select(~chosen_on), means.select(~chosen_on))
    evidence = find_evidence(lm, prompts.select(chosen_on), means.select(chosen_on), least)
    members, passed = members_of(evidence, least), mover_tests(evidence, least).sum(dim=(1, 2))
    classes = classes_of(evidence, least)
    progress(1, 3)
    tested = _compared(testing, classes, (lm.n_layers * lm.n_heads, lm.n_heads), n_draws, probe_seed)
    progress(2, 3)
    tested |= _judged(choosing, testing, members, classes, search)
    tested |= _knocked_out_otherwise(lm, prompts.select(~chosen_on), Kept(nodes_of(classes)))
    progress(3, 3)
    chosen = _columns(members, passed, int(chosen_on.sum()))
    halves = ((chosen, chosen_on), (tested, ~chosen_on))
    return {
        name: Curve(curve.x, among_all(curve.values, where)) for found, where in halves for name, curve in found.items()
    }


def _running(lm: LanguageModel, prompts: Promptset, means: TemplateMeans) -> Run:
    """Runs circuits on some prompts."""
    readout = primary_readout(prompts)
    return remembering(lambda circuits: knock_out(lm, prompts.clean, readout, circuits, means))


def _require_behavior(lm: LanguageModel, prompts: Promptset, means: TemplateMeans, least: float) -> None:
    right = float((_running(lm, prompts, means)([Kept((), is_all_but=True)]) > 0).double().mean())
    if right < least:
        raise NotApplicable(
            f"ioi_circuit: {lm.name} prefers the indirect object in {right:.3g} of the prompts, fewer than {least:g}: "
            "there is no behavior to explain"
        )


def _compared(
    run: Run, classes: Mapping[str, list[Head]], sizes: tuple[int, int], n_draws: int, seed: int
) -> dict[str, Curve]:
    """The curves over the number of heads that are kept; sizes: heads of the model, and of a layer."""
    compared, nodes = circuits_compared(classes, NAIVE), nodes_of(classes)
    values = run(list(compared.values()))
    curves = {}
    for place, (name, kept) in enumerate(compared.items()):
        n_named = len({node[:2] for node in kept.nodes})
        curves[name] = _curve([sizes[0] - n_named if kept.is_all_but else n_named], values[:, [place]])
    if not classes["name_mover"]:
        curves["without_movers"] = _curve(
            curves["without_movers"].x.int().tolist(), torch.full((len(values), 1), torch.nan)
        )
    drawn = random_circuits(nodes, sizes[1], n_draws, seed)
    mean = run(drawn).double().mean(dim=1, keepdim=True) if drawn else torch.full((len(values), 1), torch.nan)
    curves["random_circuits"] = _curve([len({node[:2] for node in nodes})], mean)
    return curves


def _knocked_out_otherwise(lm: LanguageModel, prompts: Promptset, circuit: Kept) -> dict[str, Curve]:
    """The circuit, and no head, while all others write what they write on another prompt, or nothing."""
    found = {}
    for kind in ("resample", "zero"):
        instead = instead_of_heads(lm, abc_of(prompts), kind)
        values = knock_out(lm, prompts.clean, primary_readout(prompts), [circuit, EMPTY], instead)
        for place, (name, kept) in enumerate({"circuit": circuit, "empty": EMPTY}.items()):
            n_heads = len({node[:2] for node in kept.nodes})
            found[f"{name}_{kind}"] = _curve([n_heads], values[:, [place]])
    return found


def _judged(
    choosing: Run, testing: Run, members: Sequence[Member], classes: Mapping[str, list[Head]], search: Search
) -> dict[str, Curve]:
    """Completeness, and minimality of every member, their sets K chosen on other prompts."""
    nodes = nodes_of(classes)
    if not nodes:
        n_items = len(testing([Kept(())]))
        names = ("incompleteness_greedy", "incompleteness_sampled", "minimality")
        return {name: _curve([1], torch.full((n_items, 1), torch.nan)) for name in names}
    greedy = greedy_removals(choosing, nodes, search.n_greedy)
    steps = [greedy[: step + 1] for step in range(len(greedy))]
    sampled = sampled_removals(nodes, search.n_sampled, search.seed)
    costs = removal_costs(testing, nodes, best_contexts(choosing, nodes, classes, search))
    of_members = [nodes.index((*each.head, ACTS_AT[each.role])) for each in members]
    return {
        "incompleteness_greedy": _curve(range(1, len(steps) + 1), incompleteness(testing, nodes, steps)),
        "incompleteness_sampled": _curve(range(1, len(sampled) + 1), incompleteness(testing, nodes, sampled)),
        "minimality": _curve(range(1, len(members) + 1), costs[:, of_members]),
    }


def _columns(members: Sequence[Member], passed: Tensor, n_items: int) -> dict[str, Curve]:
    """Which heads are of which class and by what, how many are of each, and how many pass each test of a mover."""
    rows = [[ROLES.index(each.role) + 1.0, *map(float, each.head), each.score, each.least] for each in members]
    columns = torch.tensor(rows or [[torch.nan] * len(OF_MEMBERS)], dtype=torch.float64).T
    counts = [sum(each.role == role for each in members) for role in ROLES]
    return {
        **{name: _same(column, n_items) for name, column in zip(OF_MEMBERS, columns, strict=True)},
        "class_size": _same(torch.tensor(counts), n_items),
        "mover_tests": _same(passed, n_items),
    }


def _same(values: Tensor, n_items: int) -> Curve:
    """A curve over 1, 2, ... that is the same for all prompts."""
    return _curve(range(1, len(values) + 1), values.expand(n_items, -1))


def _curve(x: Sequence[int], values: Tensor) -> Curve:
    return Curve(torch.tensor(list(x), dtype=torch.float64), values.double())
