"""The report of a study: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mneme.errors import BadInput
from mneme.registry import near_names
from storage.files import write_text
from storage.home import Home
from storage.reader import reading
from storage.report.behaviors import axis_svg, behavior_svg, grid, key_svg
from storage.report.claim_picture import claims_svg
from storage.report.curves import Line, Panel, curves_svg, legend_key, panels, training_panels
from storage.report.drawings import number, shared_definitions
from storage.report.parts import Part, read_parts
from storage.report.pictures import grouped, method, named, star
from storage.report.questions import Answer, Row, ask_all
from storage.report.sections import sections_of


def write_report(home: Home, study: str, target: Path, trial_ids: Collection[str] | None = None) -> Path:
    """Write the page of a study to `target`, in one piece; returns `target`.

    With `trial_ids` the page shows these trials only, else every trial that the study has ever asked. Raises BadInput
    when nothing has been published, or nothing of this study.
    """
    with reading(home) as connection:
        rows = connection.execute("select distinct study from mart.study_trials order by study").fetchall()
        studies = [str(name) for (name,) in rows]
        if study not in studies:
            raise BadInput(f"study '{study[:80]}' has no published trials" + near_names(study[:80], studies))
        answers = ask_all(connection, study, trial_ids)
    return write_text(target, _render(study, answers, read_parts(study)))


def _render(study: str, answers: dict[str, Answer], parts: list[Part]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "place": _place, "duration": _duration, "method": method}
    environment.filters |= {"expected": _expected, "key": _legend_key, "mark": _mark_key, "drawn": _drawn}
    trials, sections = answers["trials"].rows, sections_of(parts, answers)
    return environment.get_template("page.html.j2").render(
        study=study,
        sql={name: answer.sql for name, answer in answers.items()},
        summary=_summary(trials),
        trials=trials,
        sections=sections,
        claims=answers["claims"].rows,
        verdicts=_verdicts(answers["claims"].rows),
        claims_drawing=_drawn(
            claims_svg([(each.part.name.replace("_", " "), each.rows["claims"]) for each in sections])
        ),
        behaviors=_behaviors(answers["behaviors"].rows),
        behavior_rows=answers["behaviors"].rows,
        curves=_curves(panels(answers["dynamics"].rows, answers["phase_changes"].rows)),
        training=_curves(training_panels(answers["training"].rows)),
        phase_changes=answers["phase_changes"].rows,
        roles=_roles(answers["roles"].rows),
        provenance=_provenance(trials),
        definitions=_drawn(shared_definitions()),
    )


def _verdicts(rows: list[Row]) -> dict[str, int]:
    """How many claims came to each verdict."""
    found = [row["verdict"] for row in rows]
    return {verdict: found.count(verdict) for verdict in ("holds", "does not hold", "cannot be tested")}


def _behaviors(rows: list[Row]) -> dict[str, Any]:
    """The table of behaviors: the models, and for each behavior a drawing a model."""
    found = grid(rows)
    lines = [
        {
            "behavior": behavior,
            "drawings": [_drawn(behavior_svg(behavior, model, found.of(behavior, model))) for model in found.models],
        }
        for behavior in found.behaviors
    ]
    return {"models": found.models, "lines": lines, "axis": _drawn(axis_svg())}


def _roles(rows: list[Row]) -> dict[str, Any]:
    """How many heads have each role: a line per role and promptset, a cell per model with a number for each seed."""
    models = sorted({row["model"] for row in rows})
    lines = []
    for group in grouped(rows, "role", "probe", "promptset", "promptset_seed"):
        cells = [
            ", ".join(f"{row['n_heads']}{star([row])}" for row in group if row["model"] == model) for model in models
        ]
        lines.append({"first": group[0], "cells": cells})
    return {"models": models, "lines": lines}


def _curves(drawn: list[Panel]) -> list[dict[str, Any]]:
    return [{"panel": panel, "drawing": _drawn(curves_svg(panel))} for panel in drawn]


def _mark_key(kind: str) -> Markup:
    return _drawn(key_svg(kind))


def _legend_key(line: Line) -> Markup:
    return _drawn(legend_key(line))


def _expected(row: Row) -> str:
    """Where the difference was expected."""
    margin = number(row["margin"])
    below = margin if row["margin"] == 0 else f"−{margin}"
    return {"above": f"> {margin}", "below": f"< {below}", "within": f"within ±{margin}"}[row["expected"]]


def _place(row: Row) -> str:
    """Model and promptset, with their seeds in brackets; a step of the training stands behind an @."""
    step = "" if row.get("step") is None else f"@{row['step']}"
    promptset = named(row["promptset"] or "while training", row["promptset_seed"])
    return f"{named(row['model'], row['model_seed'])}{step} · {promptset}"


def _duration(seconds: float) -> str:
    """Seconds, or minutes, or hours."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _summary(trials: list[Row]) -> dict[str, Any]:
    statuses = [trial["status"] for trial in trials]
    names = ("model", "promptset", "probe")
    return {
        "count": {status: statuses.count(status) for status in ("delivered", "failed", "not_applicable")},
        "names": {name: sorted({trial[name] for trial in trials}) for name in names},
        "seconds": sum(trial["seconds"] or 0.0 for trial in trials),
        "forwards": sum(trial["forwards"] or 0 for trial in trials),
        "last": max(trial["delivered_at"] for trial in trials),
    }


def _provenance(trials: list[Row]) -> dict[str, list[str]]:
    """What computed the study: each fact with all the values it takes."""
    facts: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        for library, version in json.loads(trial["versions"]).items():
            facts[library].add(str(version))
        for name in ("device", "dtype", "code", "mlflow_run_id"):
            facts[name] |= {str(trial[name])} - {"None"}
    return {name: sorted(values) for name, values in facts.items()}


def _drawn(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  drawings escape what comes from results
