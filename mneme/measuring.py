"""Runs one probe over a promptset: from stored arrays without a forward pass, or inside the forward, same digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.curve import Curve, CurveFacts, curves_to_arrays
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.probe import Probe, probes
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.tracing import (
    run_batches,
    stored_answers,
    stored_batches,
    stored_layers,
    stored_token_scores,
    trace_sites,
)

Arrays = dict[str, Tensor]
ROUNDING = 1e-5


def measure(  # noqa: PLR0913  what a probe may be given, by keyword
    probe: Probe,
    parameters: Mapping[str, Any],
    prompts: Promptset,
    *,
    trace: Mapping[str, Tensor] | None = None,
    lm: LanguageModel | None = None,
    ranking: Tensor | Ranking | None = None,
    probe_seed: int = 0,
    progress: Progress = silent,
) -> Arrays:
    """The items of a probe: `scores` [item layer head], `values` [item], or what an intervention returns.

    A probe that reads the weights alone gives `scores` [layer head]: it looks at no prompt. One of level `curve` gives
    `curve.<measure>.x` [point] and `curve.<measure>.values` [item point] of each of its measures, one of level
    `circuit` the arrays of its `circuit_findings.CircuitFindings`.

    trace: the stored arrays of the probe's site (`tracing.trace_sites`); without it the model `lm` runs. A probe that
    reads prompts needs neither.
    ranking: for interventions that take the heads of another probe, its items [item layer head], or [layer head]; as
    `Ranking` where they are items of other prompts, on which no prompt of these was chosen.
    Raises: NotApplicable where the probe makes no sense for these prompts or this model; BadInput when neither trace
    nor model is given, or a value lies outside the probe's range.
    """
    if probe.reads == "weights":
        return {"scores": _in_range(probe.name, probe, _of_weights(probe, lm, parameters, probe_seed, progress))}
    _check_prompts(probe, prompts)
    if probe.reads == "prompts":
        return {"values": _in_range(probe.name, probe, probe.measure(prompts, **parameters))}
    if probe.level == "intervention":
        given_first = _needed(probe, lm, ranking, prompts)
        found: Arrays = probe.measure(*given_first, probe_seed=probe_seed, progress=progress, **parameters)
        return found
    if probe.level == "circuit":
        arrays: Arrays = probe.measure(
            _model(probe, lm), prompts, probe_seed=probe_seed, progress=progress, **parameters
        ).arrays()
        return arrays
    if probe.level == "curve":
        given_first = _needed(probe, lm, ranking, prompts) if probe.ranks_with else (_model(probe, lm), prompts)
        found_curves = probe.measure(*given_first, probe_seed=probe_seed, progress=progress, **parameters)
        return _curve_arrays(probe, found_curves, len(prompts))
    if trace is None and lm is None:
        raise BadInput(f"{probe.name} needs a stored trace or a model")
    given = _Given(probe, parameters, prompts, trace, lm, progress)
    name, items = ("scores", given.head_scores()) if probe.level == "head" else ("values", given.values())
    return {name: _in_range(probe.name, probe, items)}


def head_scores(lm: LanguageModel, ids: Tensor | Batch | Promptset, probe: str, **parameters: Any) -> Tensor:
    """Scores of every head on every prompt by the pattern probe of that name: [item layer head]; NaN = not measurable.

    ids: [item position], or a Batch for prompts of several lengths, or a Promptset, whose facts the probe then uses.
    Unlike `measure` it takes prompts of any lengths, also where only one length can be averaged (METHODS 1c).
    Raises: BadInput for an unknown probe or one that does not score heads; NotApplicable as `measure`.
    """
    member = probes.get(probe)
    if member.level != "head" or member.reads == "weights":
        what = "the weights" if member.reads == "weights" else member.level
        raise BadInput(f"{probe} does not score heads on prompts but measures {what}: use mneme.measuring.measure")
    prompts = ids if isinstance(ids, Promptset) else Promptset(Batch.of(ids))
    return _in_range(probe, member, _Given(member, parameters, prompts, None, lm, silent).head_scores())


@dataclass(frozen=True)
class _Given:
    probe: Probe
    parameters: Mapping[str, Any]
    prompts: Promptset
    trace: Mapping[str, Tensor] | None
    lm: LanguageModel | None
    progress: Progress

    def head_scores(self) -> Tensor:
        """[item layer head]"""
        if self.probe.site is None:
            return self._own_head_scores()
        if self.trace is None:
            return self._live_head_scores()
        if not self.trace:
            raise NotApplicable(
                f"{self.probe.name}: this model computes attention outside the attention interface of transformers, so "
                "only behavior probes apply to it"
            )
        batches = []
        for items in stored_batches(self.trace, self.prompts):
            part = self.prompts.select(items)
            layers = stored_layers(self.trace, items)
            batches.append(torch.stack([self._of_layer(layer, part) for layer in layers], dim=1))
        return torch.cat(batches)

    def _own_head_scores(self) -> Tensor:
        _model(self.probe, self.lm).require_attention()
        return self._own()

    def _own(self) -> Tensor:
        """What a probe measures that runs the model itself."""
        lm = _model(self.probe, self.lm)
        items: Tensor = self.probe.measure(lm, self.prompts, progress=self.progress, **self.parameters)
        return items

    def _live_head_scores(self) -> Tensor:
        assert self.lm is not None  # noqa: S101  `measure` checks
        self.lm.require_attention()
        batches: list[Tensor] = []
        running: dict[int, Tensor] = {}

        def visit(part: Promptset, layer: AttentionInputs) -> None:
            running[layer.layer] = self._of_layer(layer, part).cpu()

        def finish(*_: Any) -> None:
            batches.append(torch.stack([running[layer] for layer in sorted(running)], dim=1))

        run_batches(self.lm, self.prompts, visit, finish, self.progress)
        return torch.cat(batches)

    def _of_layer(self, layer: AttentionInputs, part: Promptset) -> Tensor:
        scores: Tensor = self.probe.measure(layer, part, **self.parameters)
        return scores

    def values(self) -> Tensor:
        """[item]"""
        site = self.probe.site
        if site is None:
            return self._own()
        arrays = self.trace
        if arrays is None:
            assert self.lm is not None  # noqa: S101  `measure` checks
            arrays = trace_sites(self.lm, self.prompts, [site], self.progress)[site]
        if not arrays:
            raise NotApplicable(f"{self.probe.name} needs prompts with correct answers, and this promptset has none")
        scores = stored_answers(arrays) if site == "answer_scores" else stored_token_scores(arrays)
        found: Tensor = self.probe.measure(scores, self.prompts, **self.parameters)
        return found


def _of_weights(
    probe: Probe, lm: LanguageModel | None, parameters: Mapping[str, Any], probe_seed: int, progress: Progress
) -> Tensor:
    """[layer head]"""
    if lm is None:
        raise BadInput(f"{probe.name} reads the weights: give it a model")
    lm.require_attention()
    scores: Tensor = probe.measure(lm, probe_seed=probe_seed, progress=progress, **parameters)
    return scores


def _check_prompts(probe: Probe, prompts: Promptset) -> None:
    lengths = prompts.clean.lengths
    if int(lengths.min()) < probe.min_tokens:
        raise NotApplicable(
            f"{probe.name} means something from {probe.min_tokens} tokens on, and a prompt has {int(lengths.min())}"
        )
    if probe.one_length and not prompts.clean.is_full:
        raise NotApplicable(
            f"{probe.name} depends on the length, and the prompts have {int(lengths.min())} to {int(lengths.max())} "
            "tokens: give it prompts of one length"
        )


def _needed(
    probe: Probe, lm: LanguageModel | None, ranking: Tensor | Ranking | None, prompts: Promptset
) -> tuple[Any, ...]:
    """What an intervention takes first: the model, the prompts, and the ranking if it takes another probe's heads."""
    lm = _model(probe, lm)
    lm.require_attention()
    if probe.ranks_with is None:
        return lm, prompts
    if ranking is None:
        raise BadInput(f"{probe.name} needs the items of the probe that ranks its heads")
    given = ranking if isinstance(ranking, Ranking) else Ranking(ranking)
    n_items = len(given.scores) if given.is_elsewhere and given.scores.ndim == 3 else len(prompts)
    scores = given.scores
    if scores.ndim == 2:  # read off the weights: the same for every prompt
        scores = scores.expand(n_items, -1, -1)
    wanted = (n_items, lm.n_layers, lm.n_heads)
    if scores.shape != wanted:
        raise BadInput(f"the ranking must be [item layer head] {wanted}, not {tuple(scores.shape)}")
    return lm, prompts, Ranking(scores, given.is_elsewhere)


def _model(probe: Probe, lm: LanguageModel | None) -> LanguageModel:
    if lm is None:
        raise BadInput(f"{probe.name} runs the model itself: give it a model, not a stored trace")
    return lm


def _curve_arrays(probe: Probe, curves: Mapping[str, Curve], n_items: int) -> Arrays:
    """The curves as flat arrays, each in the range that the probe states for it."""
    if set(curves) != set(probe.curves):
        raise BadInput(
            f"{probe.name} gives the curves {list(curves)}, but states {list(probe.curves)}: its code is off"
        )
    for measure, curve in curves.items():
        if len(curve.values) != n_items:
            raise BadInput(f"{probe.name}: {measure} has {len(curve.values)} prompts, not {n_items}: its code is off")
    facts = probe.curves
    return curves_to_arrays(
        {name: Curve(each.x, _in_range(name, facts[name], each.values)) for name, each in curves.items()}
    )


def _in_range(name: str, facts: Probe | CurveFacts, items: Tensor) -> Tensor:
    """The items without the rounding that lies outside their range; what lies further outside is refused."""
    low = -torch.inf if facts.low is None else facts.low
    high = torch.inf if facts.high is None else facts.high
    defined = items[~items.isnan()]
    if bool(torch.isinf(defined).any()) or bool(((defined < low - ROUNDING) | (defined > high + ROUNDING)).any()):
        found = f"{float(defined.min())} .. {float(defined.max())}"
        raise BadInput(f"{name} gives {found}, outside {low} .. {high}: its formula is at fault")
    return items.clamp(low, high)
