"""Pictures of circuits for the page: faithfulness over size, what behaviors share, and the circuits themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from storage.report.charts import Look, Series, axis_of_places, axis_of_values, chart_svg, key_svg
from storage.report.circuit_panels import behavior_matrices, checkpoint_matrices, first_ablation
from storage.report.circuit_picture import circuit_svg
from storage.report.colours import Scale, scale_of
from storage.report.drawings import number
from storage.report.grid_maps import scale_svg
from storage.report.pictures import Looks, Picture, grouped, method, named, picture, star
from storage.report.questions import Row

_CELL, _LETTER, _TOP = 26, 6.2, 4
_LINE = ("model", "model_seed", "promptset_seed")


def faithfulness_pictures(rows: Sequence[Row], looks: Looks) -> list[Picture]:
    """A picture per probe and variant (rows of `mart.circuits`): a panel per promptset, a line per model and seed.

    Shown is the ablation under which circuits were selected; the dashed lines are random circuits of like size.
    """
    made = []
    for group in grouped(rows, "probe", "variant"):
        ablation = first_ablation(group)
        under = [row for row in group if row["ablation"] == ablation]
        known = [row for row in under if row["n_edges"] and row["faithfulness"] is not None]
        if not known:
            continue
        across = axis_of_places([_size(row) for row in known])
        ends = [row[name] for row in known for name in ("faithfulness", "ci_low", "ci_high") if row[name] is not None]
        axes, names = (across, axis_of_values(ends, known[0]["unit"])), ("share of the edges", known[0]["unit"])
        panels = [
            (
                of_panel[0]["promptset"] + star(of_panel),
                chart_svg(method(of_panel[0]), _series(of_panel, looks), axes, names),
            )
            for of_panel in grouped(known, "promptset")
        ]
        models = sorted({row["model"] for row in known})
        legend = [(key_svg(looks.of(model)), model) for model in models]
        legend += [(key_svg(Look(None, is_dashed=True)), "dashed: random circuits")]
        title = f"{method(known[0])}: {known[0]['method']}, other edges {ablation}"
        made.append(picture("circuits", title, panels, (known[0]["variant"] != "primary", title), legend=legend))
    return made


def overlap_pictures(rows: Sequence[Row]) -> list[Picture]:
    """A picture per kind of matrix (rows of `mart.circuit_overlap`), with a panel per model."""
    matrices = behavior_matrices(rows)
    made = []
    for kind, unit, title in (
        ("jaccard", "Jaccard index", "What circuits of like size share; on the diagonal, halves of one behavior"),
        ("faithfulness", "share of the behavior", "Share of a row's behavior that a column's circuit keeps"),
    ):
        values = [getattr(each, kind) for each in matrices]
        scale = scale_of((value for matrix in values for row in matrix for value in row), (None, None))
        panels = [
            (f"{each.model} {each.variant}".removesuffix(" primary"), matrix_svg(matrix, each.names, scale, unit))
            for each, matrix in zip(matrices, values, strict=True)
        ]
        legend = [(scale_svg(scale, unit), "")]
        made += [picture("overlaps", title, panels, (kind != "jaccard", title), legend=legend)] if panels else []
    return made


def checkpoint_pictures(rows: Sequence[Row]) -> list[Picture]:
    """What circuits share between steps (rows of `mart.circuit_overlap`), a panel per model and behavior."""
    matrices = checkpoint_matrices(rows)
    if not matrices:
        return []
    title = "What circuits of like size share between steps of training; on the diagonal, halves of one step's prompts"
    scale = scale_of((value for each in matrices for row in each.jaccard for value in row), (None, None))
    unit = "Jaccard index"
    panels = [
        (f"{each.title} {each.variant}".removesuffix(" primary"), matrix_svg(each.jaccard, each.names, scale, unit))
        for each in matrices
    ]
    return [picture("checkpoints", title, panels, (False, title), legend=[(scale_svg(scale, unit), "")])]


def circuit_pictures(rows: Sequence[Row]) -> list[Picture]:
    """The selected circuits as graphs (rows of `mart.circuit_edges`): a picture per promptset, a panel per model."""
    made = []
    for group in grouped([row for row in rows if row["variant"] == "primary"], "probe", "promptset"):
        panels = []
        for of_trial in grouped(group, "model", "model_seed", "trial_id"):
            first = of_trial[0]
            label = named(first["model"], first["model_seed"])
            edges = [(row["source"], row["destination"], row["score"]) for row in of_trial]
            panels.append((label, circuit_svg(edges, f"{label}, {first['promptset']}", first["unit"])))
        title = f"{method(group[0])}: {group[0]['promptset']}"
        made.append(picture("graphs", title, panels, (False, title)))
    return made


def matrix_svg(matrix: Sequence[Sequence[float]], names: Sequence[str], scale: Scale, unit: str) -> str:
    """Numbers by named rows and columns, [row column]; NaN is hatched. Columns are numbered as the rows are."""
    left = 26 + math.ceil(max(map(len, names)) * _LETTER)
    width, height = left + len(names) * _CELL + 4, _TOP + len(names) * _CELL + 18
    parts = []
    for row, values in enumerate(matrix):
        y = _TOP + row * _CELL
        said = f"{row + 1} {names[row]}"
        parts.append(f'<text class="axis" x="{left - 5}" y="{y + 17}" text-anchor="end">{escape(said)}</text>')
        x = left + row * _CELL + _CELL // 2
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="middle">{row + 1}</text>')
        parts += [
            _cell(value, (names[row], names[column]), scale, (left + column * _CELL, y))
            for column, value in enumerate(values)
        ]
    return (
        f'<svg class="grid-map" viewBox="0 0 {width} {height}" style="width:{width}px" role="img"'
        f' aria-label="{escape(unit, quote=True)} by behavior">{"".join(parts)}</svg>'
    )


def _cell(value: float, behaviors: tuple[str, str], scale: Scale, place: tuple[int, int]) -> str:
    is_missing = math.isnan(value)
    fill = "url(#missing)" if is_missing else scale.colour(value)
    said = "not compared" if is_missing else number(value, 3)
    title = f"<title>{escape(behaviors[0])}, {escape(behaviors[1])}: {said}</title>"
    return f'<rect x="{place[0]}" y="{place[1]}" width="{_CELL - 1}" height="{_CELL - 1}" fill="{fill}">{title}</rect>'


def _series(rows: Sequence[Row], looks: Looks) -> list[Series]:
    """Random circuits below, then a line for each model and seed."""
    random, found = [], []
    for of_line in grouped(rows, *_LINE):
        first = of_line[0]
        name = named(first["model"], first["model_seed"])
        points = [(_size(row), row["faithfulness"], row["ci_low"], row["ci_high"]) for row in of_line]
        found.append(Series(name, looks.of(first["model"]), tuple(points)))
        drawn = [row for row in of_line if row["control_mean"] is not None]
        null = [(_size(row), row["control_mean"], row["control_low"], row["control_high"]) for row in drawn]
        random += [Series(f"{name}, random", looks.of(first["model"], is_control=True), tuple(null))] if null else []
    return [*random, *found]


def _size(row: Row) -> float:
    return float(row["n_edges"]) / float(row["n_graph_edges"])
