"""The identity of a trial once its model and promptset are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.entries import Entries
from storage.home import Home
from storage.identity import digest
from storage.rankings import RANK_ON, ranking_choice
from storage.signatures import declared_facts
from storage.specs import TrialSpec
from storage.studies import probe_parameters
from tasks.deliver import is_delivered
from tasks.keys import Parts, delivery_parts, key_of, measure_parts, trace_parts


@dataclass(frozen=True)
class Identified:
    """A trial with the keys of its stages; `ranking` is the trial whose items an intervention builds on.

    `is_ranked_elsewhere` says that those are items of other prompts than the trial's own.
    """

    trial: TrialSpec
    parts: Parts
    measure_key: str
    site: str | None
    trace_key: str | None
    ranking: Identified | None
    is_ranked_elsewhere: bool

    @property
    def own_ranking(self) -> Identified | None:
        """The ranking, where it is one of the trial's own prompts."""
        return None if self.is_ranked_elsewhere else self.ranking

    @property
    def delivery_id(self) -> str:
        """Hash of everything that the delivered numbers depend on."""
        return digest(self.parts)

    @property
    def delivery_key(self) -> str:
        """Cache key of the delivery."""
        return f"deliver-{self.delivery_id}"

    def is_delivered(self, home: Home) -> bool:
        """Whether the lake holds this very delivery, whole."""
        return is_delivered(home, Entries(home.entries).read(self.delivery_key))


def identify(trial: TrialSpec, run: Parts, elsewhere: Parts | None = None) -> Identified:
    """Keys of a trial's stages, from the identity `run` of its model and promptset.

    `elsewhere` is the identity of the model on the promptset that ranks the heads. Where that one holds the very
    prompts of the trial, it is no other, and heads are ranked as without it: never on prompts that are tested.
    """
    ranked = ranking_trial(trial)
    is_elsewhere = elsewhere is not None and elsewhere["promptset"] != run["promptset"]
    ranking = None if ranked is None else identify(ranked, elsewhere if elsewhere and is_elsewhere else run)
    ranking_key = None if ranking is None else ranking.measure_key
    measured = measure_parts(trial, run, ranking_key, is_ranked_elsewhere=is_elsewhere)
    site = declared_facts("probe", trial.probe).get("site")
    return Identified(
        trial=trial,
        parts=delivery_parts(trial, measured),
        measure_key=key_of("measure", measured),
        site=site,
        trace_key=None if site is None else key_of("trace", trace_parts(site, run)),
        ranking=ranking,
        is_ranked_elsewhere=is_elsewhere,
    )


def ranking_trial(trial: TrialSpec) -> TrialSpec | None:
    """The trial whose items rank an intervention's heads, on the same promptset or on another; None where none does.

    Both promptsets have one seed, so that a study that measures the ranking for itself measures it once.
    """
    choice = ranking_choice(trial.probe, trial.parameters)
    if choice is None:
        return None
    changes: dict[str, Any] = {"probe": choice.probe, "variant": choice.variant, "parameters": probe_parameters(choice)}
    if trial.ranked_on is not None:
        promptset = str(trial.parameters[RANK_ON])
        changes |= {"promptset": promptset, "promptset_spec": trial.ranked_on, "ranked_on": None}
    return trial.model_copy(update=changes)
