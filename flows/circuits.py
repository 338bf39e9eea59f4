"""Circuits of one model beside each other, once a study's trials are answered: which edges behaviors share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flows.answers import Answer, Asking, measured
from flows.pairing import Pairing, open_pairing
from storage.entries import Entries
from storage.home import Home
from storage.identity import code_parts, digest
from storage.signatures import literal_defaults
from storage.specs import ProbeChoice, TrialSpec
from storage.studies import Study
from tasks.compare import deliver_comparisons
from tasks.compare_circuits import MODULE, overlap
from tasks.identify import Identified, identify
from tasks.models import release
from tasks.publish import publish

Row = dict[str, Any]
_PLACE = ("step", "promptset", "promptset_seed")


@dataclass(frozen=True)
class Search:
    """A delivered search for circuits, with its model and prompts, and the keys of its stages."""

    asking: Asking
    pairing: Pairing
    asked: Identified

    @property
    def trial(self) -> TrialSpec:
        """What was asked."""
        return self.asked.trial

    @property
    def weights(self) -> str:
        """Which weights were searched."""
        return str(self.pairing.parts["weights"])

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a comparison takes of it: its items, which the store gives or the model makes again."""
        known = {**literal_defaults("probe", self.trial.probe), **self.trial.parameters}
        pairing = open_pairing(self.pairing.home, self.trial, self.pairing.device, use=True)
        return {
            "items": measured(pairing, self.asking, self.asked, {}),
            "promptset": pairing.promptset,
            "search": known["search"],
            "ablation": known["ablations"][0],
        }


def compare_circuits(home: Home, asked: Study, asking: Asking, answers: Sequence[Answer]) -> list[Row]:
    """Compare the circuits that a study names under `overlaps`; returns the rows of `raw.circuit_overlap`, published.

    Compared are searches of one training of one model that differ in the promptset, in its seed, or in the step.
    """
    rows: list[Row] = []
    for searches in _comparable(home, asked.spec.overlaps, replace(asking, refresh=frozenset()), answers):
        for own in searches:
            others = [each for each in searches if _differs_once(own.trial, each.trial)]
            if others:
                rows += _rows(home, asked, own, others)
    release()
    if deliver_comparisons(home, "circuit_overlap", asked.name, rows):
        publish(home)
    return rows


def _comparable(
    home: Home, choices: Sequence[ProbeChoice], asking: Asking, answers: Sequence[Answer]
) -> list[list[Search]]:
    groups: dict[tuple[str, str, str], list[Search]] = defaultdict(list)
    for answer in answers:
        trial = answer.trial
        if answer.status == "delivered" and ProbeChoice(probe=trial.probe, variant=trial.variant) in choices:
            pairing = open_pairing(home, trial, asking.device)
            search = Search(asking, pairing, identify(trial, pairing.parts))
            groups[trial.finished_model_label, trial.probe, trial.variant].append(search)
    return list(groups.values())


def _differs_once(own: TrialSpec, other: TrialSpec) -> bool:
    return [getattr(own, name) == getattr(other, name) for name in _PLACE].count(False) == 1


def _rows(home: Home, asked: Study, own: Search, others: Sequence[Search]) -> list[Row]:
    """The rows of one search beside others, from the cache where they are there."""
    seed = asked.spec.probe_seed
    keys = {"own": own.asked.measure_key, "others": [each.asked.measure_key for each in others], "seed": seed}
    code = {f"code.{name}": each for name, each in code_parts([MODULE]).items()}
    key = f"overlap-{digest({**keys, **own.pairing.parts, **code})}"
    is_cached = Entries(home.entries).read(key) is not None
    value = overlap.run(home, key, own.trial.label, {} if is_cached else _inputs(own, others, seed))
    rows = []
    for other, found in zip(others, value["rows"], strict=True):
        for row in found:
            about = [key, own.trial.trial_id, other.trial.trial_id, row["selection"], row["level"]]
            names = {"comparison_id": digest({"overlap": about}), "study": asked.name}
            rows.append(names | _places(own.trial, other.trial) | row)
    return rows


def _inputs(own: Search, others: Sequence[Search], seed: int) -> dict[str, Any]:
    pairing = open_pairing(own.pairing.home, own.trial, own.pairing.device, use=True)
    return {
        "own": own.about,
        "others": [{**each.about, "is_same_model": each.weights == own.weights} for each in others],
        "model": pairing.model,
        "how": {**pairing.how, "label": own.trial.label},
        "seed": seed,
    }


def _places(own: TrialSpec, other: TrialSpec) -> Row:
    """Which two trials are compared, as columns."""
    shared = {name: getattr(own, name) for name in ("model", "model_seed", "probe", "variant", "trial_id", *_PLACE)}
    return shared | {f"other_{name}": getattr(other, name) for name in ("trial_id", *_PLACE)}
