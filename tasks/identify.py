"""The identity of a trial once its model and promptset are known."""

from __future__ import annotations

from dataclasses import dataclass

from storage.entries import Entries
from storage.home import Home
from storage.identity import digest
from storage.signatures import declared_facts
from storage.specs import PRIMARY, ProbeChoice, TrialSpec
from storage.studies import probe_parameters
from tasks.deliver import is_delivered
from tasks.keys import Parts, delivery_parts, key_of, measure_parts, ranking_probe, trace_parts


@dataclass(frozen=True)
class Identified:
    """A trial with the keys of its stages; `ranking` is the trial whose items an intervention builds on."""

    trial: TrialSpec
    parts: Parts
    measure_key: str
    site: str | None
    trace_key: str | None
    ranking: Identified | None

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


def identify(trial: TrialSpec, run: Parts) -> Identified:
    """Keys of a trial's stages, from the identity `run` of its model and promptset."""
    name = ranking_probe(trial)
    ranking = None if name is None else identify(_ranking_trial(trial, name), run)
    measured = measure_parts(trial, run, None if ranking is None else ranking.measure_key)
    site = declared_facts("probe", trial.probe).get("site")
    return Identified(
        trial=trial,
        parts=delivery_parts(trial, measured),
        measure_key=key_of("measure", measured),
        site=site,
        trace_key=None if site is None else key_of("trace", trace_parts(site, run)),
        ranking=ranking,
    )


def _ranking_trial(trial: TrialSpec, probe: str) -> TrialSpec:
    parameters = probe_parameters(ProbeChoice(probe=probe))
    return trial.model_copy(update={"probe": probe, "variant": PRIMARY, "parameters": parameters})
