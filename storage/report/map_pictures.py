"""Pictures of maps: heads by layer, effects by head, and what a measure does over two conditions at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from storage.report.colours import Scale, scale_of
from storage.report.drawings import heat_map
from storage.report.grid_maps import GridMap, grid_svg, scale_svg
from storage.report.pictures import Picture, grouped, method, named, picture, star
from storage.report.questions import Row

_NAN = float("nan")
Bounds = tuple[float | None, float | None]


def head_pictures(rows: Sequence[Row], bounds: dict[str, Bounds]) -> list[Picture]:
    """A picture per probe, variant and promptset (rows of `mart.head_ranking`): a map of heads per model and seed.

    All maps of a probe and variant share their colours; what the weights alone say is drawn once.
    """
    made = []
    for of_probe in grouped(rows, "probe", "variant"):
        scale = _scale(of_probe, "score", bounds)
        groups = grouped(of_probe, "is_control", "promptset", "promptset_seed")
        reads_weights = all(row["n_items"] is None and row["score"] is not None for row in of_probe)
        made += [_map_picture("maps", group, "score", scale) for group in (groups[:1] if reads_weights else groups)]
    return made


def effect_pictures(rows: Sequence[Row], bounds: dict[str, Bounds]) -> list[Picture]:
    """A picture per probe, variant, promptset, intervention and position (rows of `mart.head_effects`)."""
    made = []
    for of_probe in grouped(rows, "probe", "variant"):
        scale = _scale(of_probe, "effect", bounds)
        names = ("is_control", "promptset", "promptset_seed", "intervention", "position_label")
        made += [_map_picture("effects", group, "effect", scale) for group in grouped(of_probe, *names)]
    return made


def grid_pictures(rows: Sequence[Row]) -> list[Picture]:
    """A picture per probe, variant, promptset and pair of conditions: a map per model and seed.

    Rows hold the mean over prompts of one cell each (see the question `grids`); a pair that leaves more than half of
    its cells empty, and one that varies in fewer than three values of either, is no grid.
    """
    made = []
    for group in grouped(rows, "is_control", "promptset", "probe", "variant", "x_name", "y_name"):
        xs, ys = (sorted({row[axis] for row in group}) for axis in ("x", "y"))
        n_cells = len({(row["x"], row["y"]) for row in group})
        if min(len(xs), len(ys)) < 3 or 2 * n_cells < len(xs) * len(ys):
            continue
        first = group[0]
        scale = scale_of((row["value"] for row in group), (first["low"], first["high"]))
        title = f"{method(first)} by {first['x_name']} and {first['y_name']} · {first['promptset']}"
        panels = [
            (_model(of_model), grid_svg(_grid(of_model, xs, ys), scale, title))
            for of_model in grouped(group, "model", "model_seed")
        ]
        rank = (first["is_control"], first["variant"] != "primary", title)
        made.append(picture("grids", title, panels, rank, legend=[(scale_svg(scale, first["unit"]), "")]))
    return made


def _grid(rows: list[Row], xs: list[float], ys: list[float]) -> GridMap:
    found = {(row["x"], row["y"]): row for row in rows}
    values = tuple(tuple(found[x, y]["value"] if (x, y) in found else _NAN for y in ys) for x in xs)
    counts = tuple(tuple(found[x, y]["n_items"] if (x, y) in found else 0 for y in ys) for x in xs)
    return GridMap((rows[0]["x_name"], rows[0]["y_name"]), tuple(xs), tuple(ys), values, counts)


def _scale(rows: list[Row], column: str, bounds: dict[str, Bounds]) -> Scale:
    values = (_NAN if row[column] is None else row[column] for row in rows)
    return scale_of(values, bounds[rows[0]["trial_id"]])


def _map_picture(kind: str, rows: list[Row], column: str, scale: Scale) -> Picture:
    first = rows[0]
    about = [str(first[name]) for name in ("intervention", "position_label") if first.get(name) is not None]
    place = "weights" if kind == "maps" and first["n_items"] is None else _place(first)
    title = " · ".join([method(first), *([" at ".join(about)] if about else []), place])
    panels = [
        (_model(of_trial), heat_map(_matrix(of_trial, column), scale, first["unit"]))
        for of_trial in grouped(rows, "model", "model_seed", "trial_id")
    ]
    return picture(kind, title, panels, (first["is_control"], first["variant"] != "primary", title))


def _model(rows: list[Row]) -> str:
    """The model of some rows with its seed, and a star where one of them rests on few prompts."""
    return named(rows[0]["model"], rows[0]["model_seed"]) + star(rows)


def _place(row: Row) -> str:
    return named(row["promptset"], row["promptset_seed"]) + (" (control)" if row["is_control"] else "")


def _matrix(rows: list[Row], column: str) -> list[list[float]]:
    """[layer head]; NaN where there is no number."""
    n_layers, n_heads = (max(row[axis] for row in rows) + 1 for axis in ("layer", "head"))
    matrix = [[_NAN] * n_heads for _ in range(n_layers)]
    for row in rows:
        if row[column] is not None and not math.isnan(row[column]):
            matrix[row["layer"]][row["head"]] = row[column]
    return matrix
