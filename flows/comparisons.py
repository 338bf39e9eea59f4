"""What a study compares once its trials are published: phase changes first, then claims, which may read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from storage.home import Home
from storage.specs import TrialSpec
from storage.studies import Study
from tasks.compare import curve_ids, deliver_comparisons, find_phase_changes, judge_claims
from tasks.publish import publish


@dataclass(frozen=True)
class Compared:
    """Rows of `raw.phase_changes` and of `raw.comparisons`."""

    phase_changes: tuple[dict[str, Any], ...]
    claims: tuple[dict[str, Any], ...]

    @property
    def ids(self) -> list[str]:
        """What stands for the comparisons: the same ids, the same numbers."""
        return [str(each["comparison_id"]) for each in (*self.phase_changes, *self.claims)]

    @property
    def verdicts(self) -> dict[str, int]:
        """How many claims came to each verdict."""
        found = [str(each["verdict"]) for each in self.claims]
        return {verdict: found.count(verdict) for verdict in sorted(set(found))}


def compare(home: Home, asked: Study, trials: Iterable[TrialSpec]) -> Compared:
    """Find phase changes in these trials and in the trainings of their models, then judge the study's claims on them.

    Each is published when it is delivered, and nothing is where a study asks for neither.
    """
    ids = curve_ids(trials)
    changes = find_phase_changes(home, asked.name, asked.spec.phase_changes, ids)
    if deliver_comparisons(home, "phase_changes", asked.name, changes):
        publish(home)
    claims = judge_claims(home, asked.name, asked.spec.claims, ids, seed=asked.spec.probe_seed)
    if deliver_comparisons(home, "comparisons", asked.name, claims):
        publish(home)
    return Compared(tuple(changes), tuple(claims))
