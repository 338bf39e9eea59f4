"""Parts of a page: the studies that a study includes, each a section with its own tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mneme.errors import BadInput
from storage.config_files import config_path, parse, read_yaml
from storage.report.questions import Row
from storage.specs import StudySpec


@dataclass(frozen=True)
class Part:
    """What a section shows: trials of these promptsets and (probe, variant) pairs, and these claims.

    The name is empty where the page is one part, which holds everything.
    """

    name: str = ""
    description: str = ""
    promptsets: tuple[str, ...] = ()
    probes: tuple[tuple[str, str], ...] = ()
    claims: tuple[str, ...] = ()

    def asks(self, row: Row) -> bool:
        """Whether a row of `mart.trials` is one of this part."""
        return not self.name or (row["promptset"] in self.promptsets and (row["probe"], row["variant"]) in self.probes)


def read_parts(study: str) -> list[Part]:
    """The parts of a study as its YAML names them; one that holds everything where it includes no other.

    So it is where the study or one that it includes has gone from the configurations: results outlive them.
    """
    try:
        spec = _read(study)
        parts = [_part(name, _read(name)) for name in (*spec.includes, *([study] if spec.probes else []))]
    except BadInput:
        return [Part()]
    return parts if spec.includes else [Part()]


def part_of_trials(parts: Sequence[Part], trials: Iterable[Row]) -> dict[str, int]:
    """Which part shows each trial: the first that asks it, the last one where none does."""
    return {
        row["trial_id"]: next((index for index, each in enumerate(parts) if each.asks(row)), len(parts) - 1)
        for row in trials
    }


def part_of_claim(parts: Sequence[Part], claim: str) -> int:
    """Which part shows a claim; the last one where none names it."""
    return next((index for index, each in enumerate(parts) if claim in each.claims), len(parts) - 1)


def _read(study: str) -> StudySpec:
    return parse(StudySpec, read_yaml(config_path("studies", study)), f"study {study}")


def _part(name: str, spec: StudySpec) -> Part:
    return Part(
        name,
        spec.description,
        spec.promptsets,
        tuple((each.probe, each.variant) for each in spec.probes),
        tuple(spec.claims),
    )
