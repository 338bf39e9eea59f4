"""Probes: pure measurements with the facts that every number of theirs carries, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mneme.curve import CurveFacts
from mneme.registry import Registry, member_of

Level = Literal["head", "behavior", "intervention", "curve", "circuit"]
Site = Literal["attention_inputs", "token_scores", "answer_scores"]
Group = Literal["mean", "median"]
Reads = Literal["prompts", "weights"]


@dataclass(frozen=True)
class Probe:
    """A registered probe.

    level: `head` scores heads, `behavior` gives [item], `intervention` changes the model's run and gives effects,
    `curve` gives measures along an axis, [item point] each, `circuit` finds and tests circuits of edges.
    unit, low, high: what the number is and where it may lie; None = unbounded; NaN means not measurable.
    site: what it reads of a trace: a `head` probe [item head] of one layer at a time. None where it runs the model
    itself: interventions, curves, circuits, `head` probes that give [item layer head] at once, `behavior` probes that
    give [item].
    reads: what it takes instead of a trace or a run of the model: `prompts` = the promptset alone; `weights` = the
    model's weights alone, a `head` probe that gives [layer head].
    ranks_with: for interventions, the parameter that names the probe whose heads they take; None where there is none.
    effect_name: for interventions, what was done to a head, with parameters in braces.
    is_accuracy: whether a behavior probe's value is a share of right answers.
    group: how a behavior probe's items become one number: their mean, or their median with the mean as a second row.
    min_tokens, one_length: the shortest prompt on which the number means something, and whether all prompts must have
    one length to be averaged (METHODS 1c); `measuring` checks both, the function itself does not.
    curves: for `curve` probes, each measure's facts by name; `unit`, `low` and `high` are those of the first.
    """

    name: str
    module: str
    measure: Callable[..., Any]
    level: Level
    unit: str
    low: float | None
    high: float | None
    site: Site | None
    source: str
    reads: Reads | None = None
    ranks_with: str | None = None
    effect_name: str | None = None
    is_accuracy: bool = False
    group: Group = "mean"
    min_tokens: int = 1
    one_length: bool = False
    curves: Mapping[str, CurveFacts] = field(default_factory=dict)


probes: Registry[Probe] = Registry("probe", "mneme.probes")


def probe(  # noqa: PLR0913  a registration states its facts by keyword
    *,
    level: Level,
    unit: str,
    low: float | None,
    high: float | None,
    source: str,
    site: Site | None = None,
    reads: Reads | None = None,
    ranks_with: str | None = None,
    effect_name: str | None = None,
    is_accuracy: bool = False,
    group: Group = "mean",
    min_tokens: int = 1,
    one_length: bool = False,
    curves: Mapping[str, tuple[str, str, float | None, float | None]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a measurement under its function name, with the facts of `Probe`."""

    def decorate(measure: Callable[..., Any]) -> Callable[..., Any]:
        name, module = member_of(measure)
        facts = Probe(
            name=name,
            module=module,
            measure=measure,
            level=level,
            unit=unit,
            low=low,
            high=high,
            site=site,
            source=source,
            reads=reads,
            ranks_with=ranks_with,
            effect_name=effect_name,
            is_accuracy=is_accuracy,
            group=group,
            min_tokens=min_tokens,
            one_length=one_length,
            curves={measure: CurveFacts(*said) for measure, said in (curves or {}).items()},
        )
        probes.register(name, facts, module)
        return measure

    return decorate
