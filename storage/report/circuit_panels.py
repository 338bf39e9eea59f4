"""Rows of circuits as what is drawn of them: panels of faithfulness over size, and matrices of behaviors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from storage.report.circuit_figures import FaithfulnessLine, FaithfulnessPanel, Point, matrix_png, overlap_png
from storage.report.pictures import grouped, named
from storage.report.questions import Row

CIRCUITS = """
    select * from mart.circuits
    where list_contains(?, trial_id)
    order by model, model_seed, promptset, promptset_seed, probe, variant, ablation, n_edges_requested
"""
OVERLAPS = """
    select * from mart.circuit_overlap
    where study = ? and list_contains(?, trial_id) and level = 'edge' and step is null and other_step is null
    order by model, model_seed, promptset, other_promptset
"""
CHECKPOINTS = """
    select * from mart.circuit_overlap
    where study = ? and list_contains(?, trial_id) and level = 'edge' and step is not null and step <> other_step
    order by model, model_seed, promptset, step, other_step
"""
_NAN = float("nan")
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class BehaviorMatrix:
    """Numbers of one model by behavior and behavior, [own other]; the diagonal is what each is compared with."""

    model: str
    variant: str
    names: tuple[str, ...]
    jaccard: Matrix
    faithfulness: Matrix

    def figures(self) -> dict[str, bytes]:
        """The two matrices as PNG files, by name."""
        shared = f"{self.model}: what circuits share, of like size; framed: halves of one behavior"
        crossed = f"{self.model}: share of a row's behavior that a column's circuit keeps"
        names = (self.names, self.names)
        return {
            "overlap": overlap_png(self.jaccard, self.names, shared),
            "cross_faithfulness": matrix_png(
                self.faithfulness, names, crossed, "share of the behavior", has_frames=True
            ),
        }


@dataclass(frozen=True)
class CheckpointMatrix:
    """What circuits of one behavior share between the steps of one training, [own other]; ceilings on the diagonal."""

    title: str
    variant: str
    names: tuple[str, ...]
    jaccard: Matrix

    def figure(self) -> bytes:
        """The matrix as a PNG file."""
        about = f"{self.title}: what circuits at two steps share, of like size; framed: halves of one step's prompts"
        return overlap_png(self.jaccard, self.names, about)


def faithfulness_panels(rows: Iterable[Row]) -> dict[str, list[FaithfulnessPanel]]:
    """Panels by model, one per promptset, from rows of `mart.circuits` under the first ablation of each trial.

    A line per variant; random circuits are those of the first variant that has some.
    """
    found: dict[str, list[FaithfulnessPanel]] = {}
    for group in grouped(rows, "model", "model_seed", "promptset", "promptset_seed"):
        first = group[0]
        lines: list[FaithfulnessLine] = []
        random: tuple[Point, ...] = ()
        for of_variant in grouped(group, "probe", "variant"):
            under = [row for row in of_variant if row["ablation"] == first_ablation(of_variant)]
            name = str(under[0]["method"]) + ("" if under[0]["search"] == "top-n" else f", {under[0]['search']}")
            lines.append(FaithfulnessLine(name, _points(under, "faithfulness", "ci_low", "ci_high")))
            random = random or _points(under, "control_mean", "control_low", "control_high")
        title = named(first["promptset"], first["promptset_seed"])
        model = named(first["model"], first["model_seed"])
        found.setdefault(model, []).append(FaithfulnessPanel(title, tuple(lines), random))
    return found


def behavior_matrices(rows: Iterable[Row]) -> list[BehaviorMatrix]:
    """A pair of matrices per model and variant, from rows of `mart.circuit_overlap` at the level of edges."""
    return [
        _matrix(group)
        for group in grouped(rows, "model", "model_seed", "probe", "variant")
        if any(row["selection"] == "matched" for row in group)
    ]


def checkpoint_matrices(rows: Iterable[Row]) -> list[CheckpointMatrix]:
    """A matrix per model, behavior and variant, from rows of `mart.circuit_overlap` between steps, level of edges."""
    made = []
    for group in grouped(rows, "model", "model_seed", "promptset", "promptset_seed", "probe", "variant"):
        matched = [row for row in group if row["selection"] == "matched"]
        steps = sorted({row[which] for row in matched for which in ("step", "other_step")})
        if matched:
            shared = _shared(matched, steps, ("step", "other_step"))
            title = f"{named(group[0]['model'], group[0]['model_seed'])} {_behavior(group[0])}"
            made.append(CheckpointMatrix(title, str(group[0]["variant"]), tuple(map(str, steps)), shared))
    return made


def _matrix(rows: Sequence[Row]) -> BehaviorMatrix:
    about = [row | {"own": _behavior(row), "other": _behavior(row, "other_")} for row in rows]
    names = list(dict.fromkeys(row["own"] for row in about))
    shared = _shared([row for row in about if row["selection"] == "matched"], names, ("own", "other"))
    crossed = [[_NAN] * len(names) for _ in names]
    for row in about:
        if row["selection"] == "faithful" and row["other"] in names:
            own = names.index(row["own"])
            crossed[own][names.index(row["other"])] = _number(row["cross_faithfulness"])
            crossed[own][own] = _number(row["own_faithfulness"])
    model = named(rows[0]["model"], rows[0]["model_seed"])
    return BehaviorMatrix(model, str(rows[0]["variant"]), tuple(names), shared, tuple(map(tuple, crossed)))


def _shared(rows: Sequence[Row], names: Sequence[Any], columns: tuple[str, str]) -> Matrix:
    """What circuits of one size share, by the names in two columns; on the diagonal the mean of a row's ceilings."""
    shared = [[_NAN] * len(names) for _ in names]
    for own, name in enumerate(names):
        of_row = [row for row in rows if row[columns[0]] == name]
        for row in of_row:
            if row[columns[1]] in names:
                shared[own][names.index(row[columns[1]])] = _number(row["jaccard"])
        ceilings = [row["ceiling"] for row in of_row if row["ceiling"] is not None]
        shared[own][own] = sum(ceilings) / len(ceilings) if ceilings else _NAN
    return tuple(map(tuple, shared))


def _behavior(row: Row, which: str = "") -> str:
    return named(row[f"{which}promptset"], row[f"{which}promptset_seed"] or None)


def _number(value: float | None) -> float:
    return _NAN if value is None else float(value)


def first_ablation(rows: Sequence[Row]) -> str:
    """The ablation under which circuits were selected: the one with controls, else the first by name."""
    tested = (row["ablation"] for row in rows if row["completeness"] is not None)
    return str(next(tested, rows[0]["ablation"]))


def _points(rows: Sequence[Row], value: str, low: str, high: str) -> tuple[Point, ...]:
    known = [row for row in rows if row[value] is not None and math.isfinite(row[value])]
    return tuple((row["n_edges"] / row["n_graph_edges"], row[value], row[low], row[high]) for row in known)
