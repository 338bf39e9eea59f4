"""A study's YAML with the changes of the command line, resolved to its trials."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mneme.errors import BadInput
from mneme.registry import near_names
from storage.config_files import config_path, parse, read_spec, read_yaml, set_key
from storage.config_text import plain_yaml, refuse_odd_values
from storage.model_steps import refuse_absent_steps
from storage.rankings import ranking_choice, ranking_promptset
from storage.signatures import check_parameters, declared_facts
from storage.specs import (
    PRIMARY,
    ModelSpec,
    PhaseChangesSpec,
    ProbeChoice,
    ProbeSpec,
    PromptsetSpec,
    StudySpec,
    TrialSpec,
)

_MEMBERS = ("models", "promptsets", "probes")


@dataclass(frozen=True)
class Study:
    """A resolved study: its name, its spec, its trials in order, grouped by model, step, then promptset.

    `settings` are the changes it was loaded with, as a mapping that `load_study` takes.
    """

    name: str
    spec: StudySpec
    trials: tuple[TrialSpec, ...]
    settings: dict[str, Any]


def load_study(name: str, settings: Sequence[str] | Mapping[str, Any] = ()) -> Study:
    """Read a study and resolve each member; raises BadInput for anything unknown, for a claim whose SQL cannot be
    asked, and for a device that is not there.

    `settings` are `key=value` texts or a mapping: study fields (`promptset_seeds=[0,1]`), or fields of members
    (`promptsets.repeated_tokens.parameters.n_items=8`).
    """
    content = read_yaml(config_path("studies", name))
    written = parse(StudySpec, content, f"study {name}")
    _refuse_idle_overrides(written, written.overrides)
    changes = _parsed(settings)
    member_changes = {key: value for key, value in changes.items() if _is_member_key(key)}
    for key, value in changes.items():
        if key not in member_changes:
            set_key(content, key, value, f"study {name}")
    changed = parse(StudySpec, content, f"study {name}")
    _refuse_idle_overrides(changed, member_changes)
    # what the file changes in members that --set has taken out of the study goes with them
    kept = {key: value for key, value in changed.overrides.items() if _uses(changed, key)}
    spec = changed.model_copy(update={"overrides": {**kept, **member_changes}})
    _refuse_absent_device(spec.device)
    _refuse_bad_claims(name, spec)
    _refuse_bad_overlaps(name, spec)
    return _with_included(Study(name, spec, tuple(_trials(spec)), changes))


def _with_included(study: Study) -> Study:
    """The study with the trials, phase changes and claims of those that it includes; each trial once, by pairing."""
    trials = {each.trial_id: each for each in study.trials}
    claims = dict(study.spec.claims)
    overlaps = list(study.spec.overlaps)
    measures = list(study.spec.phase_changes.measures) if study.spec.phase_changes else []
    for name in study.spec.includes:
        included = _included(study.name, name)
        trials |= {each.trial_id: each for each in included.trials}
        if doubled := claims.keys() & included.spec.claims.keys():
            raise BadInput(f"study {study.name} gets the claim '{min(doubled)}' twice: rename it in study {name}")
        claims |= included.spec.claims
        overlaps += [each for each in included.spec.overlaps if each not in overlaps]
        measures += included.spec.phase_changes.measures if included.spec.phase_changes else []
    changes = PhaseChangesSpec(measures=tuple(dict.fromkeys(measures))) if measures else None
    spec = study.spec.model_copy(update={"claims": claims, "phase_changes": changes, "overlaps": tuple(overlaps)})
    _refuse_two_meanings(study.name, trials.values())
    return Study(study.name, spec, _by_pairing(list(trials.values())), study.settings)


def _refuse_two_meanings(study: str, trials: Iterable[TrialSpec]) -> None:
    """A name stands for one thing in a study: prompts are shared by name, and rows are asked for by it."""
    meant: dict[str, Any] = {}
    for trial in trials:
        meanings = {
            f"model '{trial.model}'": trial.model_spec,
            f"promptset '{trial.promptset}'": trial.promptset_spec,
            f"probe '{trial.probe}[{trial.variant}]'": trial.parameters,
        }
        for name, meaning in meanings.items():
            if meant.setdefault(name, meaning) != meaning:
                raise BadInput(
                    f"study {study} gets the {name} with two sets of parameters from the studies that it includes: "
                    "write one of them as a YAML with a name of its own"
                )


def _included(study: str, name: str) -> Study:
    content = parse(StudySpec, read_yaml(config_path("studies", name)), f"study {name}")
    if content.includes:
        raise BadInput(f"study {study} includes {name}, which includes others: name those instead")
    return load_study(name)


def _by_pairing(trials: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Models one after the other, and the trials of each promptset together: a model is loaded once."""
    models = {label: place for place, label in enumerate(dict.fromkeys(each.model_label for each in trials))}
    pairings = {label: place for place, label in enumerate(dict.fromkeys(each.pairing_label for each in trials))}
    return tuple(sorted(trials, key=lambda each: (models[each.model_label], pairings[each.pairing_label])))


def _refuse_absent_device(device: str) -> None:
    if device != "cpu":
        from mneme.devices import check_device  # noqa: PLC0415  torch, which a study on the CPU does not need here

        check_device(device)


def _refuse_bad_claims(name: str, spec: StudySpec) -> None:
    if spec.claims:
        from storage.claim_queries import refuse_bad_claims  # noqa: PLC0415  pandera and DuckDB, which claims alone need

        refuse_bad_claims(name, spec.claims)


def _refuse_bad_overlaps(name: str, spec: StudySpec) -> None:
    for each in spec.overlaps:
        if each not in spec.probes:
            raise BadInput(f"study {name}: `overlaps` names {each.probe}[{each.variant}], which is none of its probes")
        level = declared_facts("probe", each.probe)["level"]
        if level != "circuit":
            raise BadInput(f"study {name}: `overlaps` compares circuits, but {each.probe} is of level {level}")


def _is_member_key(key: str) -> bool:
    return key.split(".", maxsplit=1)[0] in _MEMBERS and "." in key


def _parsed(settings: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        refuse_odd_values(dict(settings), "settings")
        return dict(settings)
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"--set {setting[:80]!r} is not key=value")
        parsed[key.strip()] = plain_yaml(value, f"--set {key.strip()[:80]}: the value {value[:80]!r}")
    return parsed


def _members(spec: StudySpec, kind: str) -> Iterator[str]:
    """Names of the members of a kind that a study uses; promptsets that only rank heads are used too."""
    if kind == "models":
        yield from (each.model for each in spec.models)
    elif kind == "probes":
        yield from (each.probe for each in spec.probes)
    elif kind == "promptsets":
        yield from spec.promptsets
        for each in spec.probes:
            parameters = probe_parameters(each, _changes(spec, "probes", each.probe))
            if (name := ranking_promptset(each.probe, parameters)) is not None:
                yield name


def _uses(spec: StudySpec, key: str) -> bool:
    kind, _, rest = key.partition(".")
    return any(rest.startswith(f"{name}.") for name in _members(spec, kind))


def _refuse_idle_overrides(spec: StudySpec, overrides: Mapping[str, Any]) -> None:
    for key in overrides:
        kind, _, rest = key.partition(".")
        if kind not in _MEMBERS or "." not in rest:
            raise BadInput(f"override '{key[:80]}' must read models|promptsets|probes.<name>.<key>")
        if not _uses(spec, key):
            name = rest.partition(".")[0][:80]
            raise BadInput(
                f"override '{key[:80]}' changes nothing: the study uses no {kind[:-1]} '{name}'"
                + near_names(name, sorted(set(_members(spec, kind))))
            )


def _changes(spec: StudySpec, kind: str, name: str) -> list[tuple[str, Any]]:
    prefix = f"{kind}.{name}."
    return [(key.removeprefix(prefix), value) for key, value in spec.overrides.items() if key.startswith(prefix)]


def _trials(spec: StudySpec) -> list[TrialSpec]:
    models = [
        (each, cast(ModelSpec, read_spec("models", each.model, _changes(spec, "models", each.model))))
        for each in spec.models
    ]
    promptsets = [
        (name, cast(PromptsetSpec, read_spec("promptsets", name, _changes(spec, "promptsets", name))))
        for name in spec.promptsets
    ]
    for chosen, model in models:
        if model.source.kind == "recipe":
            check_parameters("recipe", model.source.recipe, model.source.parameters)
        elif chosen.seeds is not None:
            raise BadInput(f"model {chosen.model} is not trained here: take its seeds out of the study")
        refuse_absent_steps(chosen.model, model, spec.steps)
    for _, promptset in promptsets:
        check_parameters("promptset", promptset.generator, promptset.parameters)
    probes = [_probe(spec, each) for each in spec.probes]
    model_states = [
        (chosen.model, model, seed, step)
        for chosen, model in models
        for seed in (chosen.seeds or spec.model_seeds if model.source.kind == "recipe" else (None,))
        for step in spec.steps or (None,)
    ]
    return [
        TrialSpec(
            model=model_name,
            model_spec=model,
            model_seed=model_seed,
            step=step,
            promptset=promptset_name,
            promptset_spec=promptset,
            promptset_seed=promptset_seed,
            probe=choice.probe,
            variant=choice.variant,
            parameters=parameters,
            probe_seed=spec.probe_seed,
            ranked_on=ranked_on,
        )
        for (model_name, model, model_seed, step), (promptset_name, promptset), promptset_seed, (
            choice,
            parameters,
            ranked_on,
        ) in itertools.product(model_states, promptsets, spec.promptset_seeds, probes)
    ]


def _probe(spec: StudySpec, choice: ProbeChoice) -> tuple[ProbeChoice, dict[str, Any], PromptsetSpec | None]:
    """A probe with its parameters, and the promptset on which its heads are ranked where that is another one."""
    parameters = probe_parameters(choice, _changes(spec, "probes", choice.probe))
    ranking = ranking_choice(choice.probe, parameters)
    if ranking is not None:
        probe_parameters(ranking)  # refuses an unknown variant
    name = ranking_promptset(choice.probe, parameters)
    if name is None:
        return choice, parameters, None
    ranked_on = cast(PromptsetSpec, read_spec("promptsets", name, _changes(spec, "promptsets", name)))
    check_parameters("promptset", ranked_on.generator, ranked_on.parameters)
    return choice, parameters, ranked_on


def probe_parameters(choice: ProbeChoice, changes: Sequence[tuple[str, Any]] = ()) -> dict[str, Any]:
    """Parameters of a probe's variant: the YAML's defaults, what the variant changes, what the study changes."""
    spec_changes = [each for each in changes if not each[0].startswith("parameters.")]
    probe = cast(ProbeSpec, read_spec("probes", choice.probe, spec_changes))
    parameters: dict[str, Any] = dict(probe.parameters)
    if choice.variant != PRIMARY:
        if choice.variant not in probe.variants:
            known = [PRIMARY, *probe.variants]
            raise BadInput(f"probe {choice.probe} has no variant '{choice.variant}'{near_names(choice.variant, known)}")
        parameters.update(probe.variants[choice.variant])
    for key, value in changes:
        if key.startswith("parameters."):
            set_key(parameters, key.removeprefix("parameters."), value, f"probes.{choice.probe}.parameters")
    check_parameters("probe", choice.probe, parameters)
    return parameters
