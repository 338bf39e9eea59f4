"""The report of a study: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import groupby
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
from storage.report.colours import scale_of
from storage.report.curves import Line, Panel, curves_svg, legend_key, panels, training_panels
from storage.report.drawings import decimals_for, heat_map, interval, number, shared_definitions
from storage.report.questions import Answer, Row, ask_all

_NAN = float("nan")


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
    return write_text(target, _render(study, answers))


def _render(study: str, answers: dict[str, Answer]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "place": _place, "duration": _duration, "method": _method}
    environment.filters |= {"expected": _expected, "key": _legend_key, "mark": _mark_key}
    trials = answers["trials"].rows
    return environment.get_template("page.html.j2").render(
        study=study,
        sql={name: answer.sql for name, answer in answers.items()},
        summary=_summary(trials),
        trials=trials,
        claims=_claims(answers["claims"].rows),
        behaviors=_behaviors(answers["behaviors"].rows),
        behavior_rows=answers["behaviors"].rows,
        curves=_curves(panels(answers["dynamics"].rows, answers["phase_changes"].rows)),
        training=_curves(training_panels(answers["training"].rows)),
        phase_changes=answers["phase_changes"].rows,
        rankings=_rankings(answers["ranking"].rows, trials),
        heat_maps=_heat_maps(answers["scores"].rows, "score", trials),
        effect_maps=_heat_maps(answers["effects"].rows, "effect", trials),
        controls=_with_intervals(answers["controls"].rows, ("control_low", "control_high")),
        behavior=_with_intervals(answers["behavior"].rows, ("chance", "chance")),
        reliability=answers["reliability"].rows,
        provenance=_provenance(trials),
        definitions=_drawn(shared_definitions()),
    )


def _claims(rows: list[Row]) -> list[Row]:
    """The claims with a drawing each: the difference on a line of its own, grey where it was expected."""
    for row in rows:
        margin = row["margin"]
        domain = _domain([row | {"more": 1.25 * margin, "less": -1.25 * margin}], "difference", "ci_low", "ci_high")
        wanted = {"above": (margin, domain[1]), "below": (domain[0], -margin), "within": (-margin, margin)}
        row["decimals"] = decimals_for(domain)
        row["drawing"] = _drawn(
            interval(row["difference"], (row["ci_low"], row["ci_high"]), domain, wanted[row["expected"]])
        )
    return rows


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
    names = [(row["model"], row["model_seed"]), (row["promptset"] or "while training", row["promptset_seed"])]
    model, promptset = (name if seed is None else f"{name}[{seed}]" for name, seed in names)
    step = "" if row.get("step") is None else f"@{row['step']}"
    return f"{model}{step} · {promptset}"


def _duration(seconds: float) -> str:
    """Seconds, or minutes, or hours."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _method(row: Row) -> str:
    """Probe and variant."""
    return str(row["probe"]) if row["variant"] == "primary" else f"{row['probe']} / {row['variant']}"


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


def _grouped(rows: Iterable[Row], *names: str) -> list[list[Row]]:
    """Neighbouring rows that agree in the named columns."""
    return [list(group) for _, group in groupby(rows, key=lambda row: tuple(row[name] for name in names))]


def _domain(rows: Iterable[Row], *names: str) -> tuple[float, float]:
    """The least and greatest of some columns, zero included."""
    known = [row[name] for row in rows for name in names if row[name] is not None]
    return min([0.0, *known]), max([0.0, *known])


def _rankings(rows: list[Row], trials: list[Row]) -> list[list[Row]]:
    """The top heads of each trial; all trials of a probe are drawn on one line from low to high."""
    bounds = _bounds(trials)
    rankings = []
    for of_probe in _grouped(rows, "probe", "variant"):
        low, high = _domain(of_probe, "score", "ci_low", "ci_high")
        known = bounds[of_probe[0]["trial_id"]]
        domain = (low, known[1] if known[1] is not None else high)
        for row in of_probe:
            row["decimals"] = decimals_for(domain)
            row["drawing"] = _drawn(interval(row["score"], (row["ci_low"], row["ci_high"]), domain))
        rankings += _grouped(of_probe, "trial_id")
    return rankings


def _with_intervals(rows: list[Row], band: tuple[str, str]) -> list[Row]:
    """The rows with a drawing each, on one line per readout and unit."""
    for group in _grouped(rows, *(("probe", "variant") if "k" in rows[0] else ("readout",))) if rows else []:
        domain = _domain(group, "value", "ci_low", "ci_high", *band)
        for row in group:
            ends = (row["ci_low"], row["ci_high"])
            row["decimals"] = decimals_for(_domain([row], "value", "ci_low", "ci_high"))
            row["drawing"] = _drawn(interval(row["value"], ends, domain, (row[band[0]], row[band[1]])))
    return rows


def _bounds(trials: list[Row]) -> dict[str, tuple[float | None, float | None]]:
    return {trial["trial_id"]: (trial["low"], trial["high"]) for trial in trials}


def _heat_maps(rows: list[Row], column: str, trials: list[Row]) -> list[dict[str, Any]]:
    """One map per trial (and intervention); all maps of a probe share their colours."""
    bounds, kinds = _bounds(trials), ("intervention", "position_label") if column == "effect" else ()
    maps = []
    for of_probe in _grouped(rows, "probe", "variant"):
        values = (_NAN if row[column] is None else row[column] for row in of_probe)
        scale = scale_of(values, bounds[of_probe[0]["trial_id"]])
        for group in _grouped(of_probe, "trial_id", *kinds):
            first = group[0]
            kind = " at ".join(str(first[name]) for name in kinds if first[name] is not None)
            drawing = _drawn(heat_map(_matrix(group, column), scale, first["unit"]))
            maps.append({"first": first, "kind": kind, "drawing": drawing})
    return maps


def _matrix(rows: list[Row], column: str) -> list[list[float]]:
    """[layer head]; NaN where there is no number."""
    n_layers, n_heads = (max(row[axis] for row in rows) + 1 for axis in ("layer", "head"))
    matrix = [[_NAN] * n_heads for _ in range(n_layers)]
    for row in rows:
        if row[column] is not None:
            matrix[row["layer"]][row["head"]] = row[column]
    return matrix


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
