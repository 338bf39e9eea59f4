"""Pictures of lines: curves of probes, masking of heads beside random heads, and scores of heads by falling score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from storage.report.charts import Look, Series, axis_of_places, axis_of_values, chart_svg, key_svg
from storage.report.pictures import Looks, Picture, grouped, method, named, picture, star
from storage.report.questions import Row

_CONTROLS = ("control_", "shuffled_", "random_")  # how curves of controls begin, before what they control
_PLACES = {"layer", "head", "position", "dimension", "class", "yes or no"}  # units of names, which no line should join
_LINE = ("model", "model_seed", "promptset_seed", "is_of_control")


def curve_pictures(rows: Sequence[Row], looks: Looks, levels: Mapping[str, str]) -> list[Picture]:
    """A picture per probe, variant and axis (rows of `mart.curves`), with a panel per measure and promptset.

    A curve that begins like a control of another one of its probe stands dashed beside it. Probes that measure along
    an axis of their own go before behaviors by condition.
    """
    known = [row for row in rows if row["value"] is not None and row["unit"] not in _PLACES]
    measures = {(row["probe"], row["measure"]) for row in known}
    marked = [row | _about_control(row, measures) for row in known]
    made = []
    for group in grouped(marked, "probe", "variant", "x_name"):
        drawn = _line_picture("curves", group, looks)
        is_by_condition = levels[group[0]["trial_id"]] != "curve"
        made += [replace(drawn, rank=(drawn.rank[0], is_by_condition, *drawn.rank[1:]))] if drawn else []
    return made


def _about_control(row: Row, measures: set[tuple[str, str]]) -> Row:
    for start in _CONTROLS:
        base = row["measure"].removeprefix(start)
        if base != row["measure"] and (row["probe"], base) in measures:
            return {"measure": base, "is_of_control": True}
    return {"is_of_control": row["is_control"]}


def masking_pictures(rows: Sequence[Row], looks: Looks) -> list[Picture]:
    """A picture per probe and variant (rows of `mart.controls`), with a panel per promptset and model.

    The line is the effect without the top k heads, the dashed one that of k random heads of the same layers, its
    shade the middle 95% of the random sets.
    """
    lines = []
    for row in rows:
        about = row | {"measure": row["model"], "x_name": "heads", "x": row["k"], "is_of_control": False}
        drawn = {"value": row["control_mean"], "ci_low": row["control_low"], "ci_high": row["control_high"]}
        lines += [about, about | drawn | {"is_of_control": True}]
    known = [row for row in lines if row["value"] is not None]
    made = [_line_picture("masking", group, looks) for group in grouped(known, "probe", "variant")]
    return [each for each in made if each is not None]


def profile_pictures(rows: Sequence[Row], looks: Looks) -> list[Picture]:
    """A picture per probe and variant (rows of `mart.head_ranking`): scores of all heads by falling score.

    A panel per promptset, a line per model and seed; where weights alone were read, which is the same for every
    promptset, one panel.
    """
    lines: list[Row] = []
    for of_trial in grouped([row for row in rows if row["score"] is not None], "trial_id"):
        ordered = sorted(of_trial, key=lambda row: -row["score"])
        place = {} if ordered[0]["n_items"] is not None else {"promptset": "weights", "promptset_seed": None}
        about = {"measure": ordered[0]["probe"], "x_name": "heads by falling score", "ci_low": None, "ci_high": None}
        lines += [
            row | about | place | {"x": float(x), "value": row["score"], "is_of_control": row["is_control"]}
            for x, row in enumerate(ordered, start=1)
        ]
    made = [_line_picture("profiles", group, looks) for group in grouped(lines, "probe", "variant")]
    return [each for each in made if each is not None]


def _line_picture(kind: str, rows: list[Row], looks: Looks) -> Picture | None:
    """One picture; None where no line has two points."""
    first = rows[0]
    across = axis_of_places([row["x"] for row in rows])
    if across.low == across.high:
        return None
    title = method(first) + (f" by {first['x_name']}" if kind == "curves" else "")
    panels = []
    for of_unit in grouped(rows, "unit"):
        ends = [row[name] for row in of_unit for name in ("value", "ci_low", "ci_high") if row[name] is not None]
        upwards = axis_of_values(ends, of_unit[0]["unit"])
        for of_panel in grouped(of_unit, "is_control", "promptset", "measure"):
            series = [each for each in _series(of_panel, looks) if len(each.points) > 1]
            label = _label(of_panel[0]) + star(of_panel)
            names = (first["x_name"], of_unit[0]["unit"])
            panels += [(label, chart_svg(f"{title}, {label}", series, (across, upwards), names))] if series else []
    rank = (first["variant"] != "primary", all(row["is_control"] for row in rows), title)
    return picture(kind, title, panels, rank, legend=_legend(rows, looks)) if panels else None


def _label(row: Row) -> str:
    measure = "" if row["measure"] == row["probe"] else f"{row['measure']} · "
    return f"{measure}{row['promptset']}" + (" (control)" if row["is_control"] else "")


def _series(rows: list[Row], looks: Looks) -> list[Series]:
    """The lines of a panel, those of controls below the others."""
    lines = []
    for of_line in grouped(rows, *_LINE):
        first = of_line[0]
        points = {row["x"]: (row["x"], row["value"], row["ci_low"], row["ci_high"]) for row in of_line}
        name = named(first["model"], first["model_seed"]) + (", control" if first["is_of_control"] else "")
        look = looks.of(first["model"], is_control=first["is_of_control"])
        lines.append(Series(name, look, tuple(points[x] for x in sorted(points))))
    return sorted(lines, key=lambda each: not each.look.is_dashed)


def _legend(rows: list[Row], looks: Looks) -> list[tuple[str, str]]:
    """A key per model, with its number of seeds, and one for controls."""
    seeds: dict[str, set[int | None]] = {}
    for row in rows:
        seeds.setdefault(row["model"], set()).add(row["model_seed"])
    entries = [
        (key_svg(looks.of(model)), model if len(each) == 1 else f"{model} ({len(each)} seeds)")
        for model, each in sorted(seeds.items())
    ]
    has_control = any(row["is_of_control"] for row in rows)
    return entries + ([(key_svg(Look(None, is_dashed=True)), "dashed: control")] if has_control else [])
