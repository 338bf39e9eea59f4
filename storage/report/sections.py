"""What each part of a page shows: its claims, pictures and tables, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup

from storage.report.circuit_pictures import (
    checkpoint_pictures,
    circuit_pictures,
    faithfulness_pictures,
    overlap_pictures,
)
from storage.report.drawings import decimals_for, interval
from storage.report.line_pictures import curve_pictures, masking_pictures, profile_pictures
from storage.report.map_pictures import effect_pictures, grid_pictures, head_pictures
from storage.report.parts import Part, part_of_claim, part_of_trials
from storage.report.pictures import Looks, Picture, chosen, grouped, looks_of
from storage.report.questions import Answer, Row

MOST_RANKINGS = 48  # of a page
_ROWS = ("ranking", "scores", "effects", "curves", "grids", "controls", "behavior", "reliability")
_ROWS_OF_CIRCUITS = ("circuits", "circuit_edges", "overlaps", "checkpoints")
_KINDS = ("circuits", "overlaps", "checkpoints", "graphs", "masking", "curves", "grids", "profiles", "effects", "maps")


@dataclass
class Section:
    """One part of a page with everything that it shows; `rows` are the part's rows of each question."""

    part: Part
    rows: dict[str, list[Row]]
    trials: list[Row]
    pictures: list[Picture] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rankings: list[list[Row]] = field(default_factory=list)
    n_rankings_left: int = 0

    @property
    def prefix(self) -> str:
        """Before the ids of this part's headings."""
        return f"{self.part.name}-" if self.part.name else ""

    def of_kind(self, kind: str) -> list[Picture]:
        """The pictures of one kind that there is room for."""
        return [each for each in self.pictures if each.kind == kind]

    @property
    def count(self) -> dict[str, int]:
        """Trials of this part by status."""
        statuses = [row["status"] for row in self.trials]
        return {status: statuses.count(status) for status in ("delivered", "failed", "not_applicable")}


def sections_of(parts: Sequence[Part], answers: dict[str, Answer]) -> list[Section]:
    """The sections of a page, in the order of its parts; those that hold nothing are left out."""
    trials = answers["trials"].rows
    place = part_of_trials(parts, trials)
    made = []
    for index, part in enumerate(parts):
        rows = {
            name: [row for row in answers[name].rows if place[row["trial_id"]] == index]
            for name in (*_ROWS, *_ROWS_OF_CIRCUITS)
        }
        rows["claims"] = [row for row in answers["claims"].rows if part_of_claim(parts, row["claim"]) == index]
        made.append(Section(part, rows, [row for row in trials if place[row["trial_id"]] == index]))
    made = [each for each in made if each.trials or each.rows["claims"]]
    _draw(made, trials)
    return made


def _draw(sections: list[Section], trials: list[Row]) -> None:
    about = {row["trial_id"]: row for row in trials}
    kept, left = chosen([_pictures(each.rows, looks_of(trials), about) for each in sections])
    for section, pictures, left_out in zip(sections, kept, left, strict=True):
        section.pictures = sorted(pictures, key=lambda each: (_KINDS.index(each.kind), each.rank))
        section.left_out = left_out
        _draw_claims(section.rows["claims"])
        _draw_intervals(section.rows["controls"], ("probe", "variant"), ("control_low", "control_high"))
        _draw_intervals(section.rows["behavior"], ("readout",), ("chance", "chance"))
        ranked = _rankings(section.rows["ranking"], about)
        section.rankings = _first(ranked, max(MOST_RANKINGS // len(sections), 4))
        section.n_rankings_left = len(ranked) - len(section.rankings)


def _pictures(rows: dict[str, list[Row]], looks: Looks, trials: dict[str, Row]) -> list[Picture]:
    bounds = {trial: (row["low"], row["high"]) for trial, row in trials.items()}
    levels = {trial: row["level"] for trial, row in trials.items()}
    return [
        *faithfulness_pictures(rows["circuits"], looks),
        *overlap_pictures(rows["overlaps"]),
        *checkpoint_pictures(rows["checkpoints"]),
        *circuit_pictures(rows["circuit_edges"]),
        *masking_pictures(rows["controls"], looks),
        *curve_pictures(rows["curves"], looks, levels),
        *grid_pictures(rows["grids"]),
        *profile_pictures(rows["scores"], looks),
        *effect_pictures(rows["effects"], bounds),
        *head_pictures(rows["scores"], bounds),
    ]


def _first(rankings: list[list[Row]], most: int) -> list[list[Row]]:
    """As many rankings as have room, in their order; primary variants go before the others."""
    order = sorted(range(len(rankings)), key=lambda index: rankings[index][0]["variant"] != "primary")
    return [rankings[index] for index in sorted(order[:most])]


def _draw_claims(rows: list[Row]) -> None:
    """A drawing of the difference on a line of its own, grey where it was expected."""
    for row in rows:
        margin = row["margin"]
        domain = _domain([row | {"more": 1.25 * margin, "less": -1.25 * margin}], "difference", "ci_low", "ci_high")
        wanted = {"above": (margin, domain[1]), "below": (domain[0], -margin), "within": (-margin, margin)}
        row["decimals"] = decimals_for(domain)
        ends = (row["ci_low"], row["ci_high"])
        row["drawing"] = _drawn(interval(row["difference"], ends, domain, wanted[row["expected"]]))


def _draw_intervals(rows: list[Row], names: tuple[str, ...], band: tuple[str, str]) -> None:
    """A drawing of each value with its interval, on one line for the rows that agree in the named columns."""
    for group in grouped(rows, *names):
        domain = _domain(group, "value", "ci_low", "ci_high", *band)
        for row in group:
            ends = (row["ci_low"], row["ci_high"])
            row["decimals"] = decimals_for(_domain([row], "value", "ci_low", "ci_high"))
            row["drawing"] = _drawn(interval(row["value"], ends, domain, (row[band[0]], row[band[1]])))


def _rankings(rows: list[Row], trials: dict[str, Row]) -> list[list[Row]]:
    """The top heads of each trial; all trials of a probe are drawn on one line from low to high."""
    rankings = []
    for of_probe in grouped(rows, "probe", "variant"):
        low, high = _domain(of_probe, "score", "ci_low", "ci_high")
        most = trials[of_probe[0]["trial_id"]]["high"]
        domain = (low, most if most is not None else high)
        for row in of_probe:
            row["decimals"] = decimals_for(domain)
            row["drawing"] = _drawn(interval(row["score"], (row["ci_low"], row["ci_high"]), domain))
        rankings += [list(group) for _, group in groupby(of_probe, key=lambda row: str(row["trial_id"]))]
    return rankings


def _domain(rows: Iterable[Row], *names: str) -> tuple[float, float]:
    """The least and greatest of some columns, zero included."""
    known = [row[name] for row in rows for name in names if row[name] is not None]
    return min([0.0, *known]), max([0.0, *known])


def _drawn(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  drawings escape what comes from results
