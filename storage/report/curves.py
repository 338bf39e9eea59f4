"""Curves over training steps, as panels of lines and as drawings of the page.

The axis of steps is log(step + 1), the one on which phase changes are fitted, so that step 0 has a place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from storage.home import Home
from storage.reader import reading
from storage.report.drawings import number
from storage.report.questions import Row, ask_all

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: safe for colour blindness
DASHES = ("", "6 3", "2 2", "8 2 2 2")  # told apart without colours too
_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 8, 34
_PANEL = ("measure", "probe", "variant", "promptset", "unit")
_CURVE = ("model", "model_seed", "promptset_seed")
Point = tuple[int, float, float | None, float | None]


@dataclass(frozen=True)
class Line:
    """One model (and seed): points (step, value, low, high) and its phase change; t50 is None without one.

    `look` numbers the colour and the dashes.
    """

    name: str
    look: tuple[int, int]
    points: tuple[Point, ...]
    t50: float | None
    t50_low: float | None
    t50_high: float | None

    def value_at(self, step: float) -> float:
        """The value between two measured steps, on the axis of the drawing."""
        right = next((i for i, point in enumerate(self.points) if point[0] >= step), len(self.points) - 1)
        (before, low, *_), (after, high, *_) = self.points[max(right - 1, 0)], self.points[right]
        share = 1.0 if after == before else (place(step) - place(before)) / (place(after) - place(before))
        return low + min(max(share, 0.0), 1.0) * (high - low)


@dataclass(frozen=True)
class Panel:
    """One measure on one promptset: a line for each model and seed."""

    title: str
    place: str
    unit: str
    lines: tuple[Line, ...]

    @property
    def last_step(self) -> int:
        """The end of the axis of steps."""
        return max(1, *(point[0] for line in self.lines for point in line.points))

    @property
    def domain(self) -> tuple[float, float]:
        """The ends of the axis of values: 0 to 1 where all lie in it, else round numbers around them and zero."""
        known = [each for line in self.lines for point in line.points for each in point[1:] if each is not None]
        low, high = min([0.0, *known]), max([0.0, *known])
        if low == 0 and high <= 1:
            return 0.0, 1.0
        grain = 10.0 ** (math.floor(math.log10(high - low)) - 1)
        return math.floor(low / grain) * grain, math.ceil(high / grain) * grain


def read_panels(home: Home, study: str, trial_ids: Collection[str] | None = None) -> dict[str, list[Panel]]:
    """The panels of a study's page, from the published results: `curves` of trials, `training` of what it measured."""
    with reading(home) as connection:
        answers = ask_all(connection, study, trial_ids, ("dynamics", "phase_changes", "training"))
    return {
        "curves": panels(answers["dynamics"].rows, answers["phase_changes"].rows),
        "training": training_panels(answers["training"].rows),
    }


def training_panels(rows: Sequence[Row]) -> list[Panel]:
    """What trainings measured themselves, the loss first."""
    return sorted(panels(rows, []), key=lambda panel: panel.title != "loss")


def panels(dynamics: Sequence[Row], phase_changes: Sequence[Row]) -> list[Panel]:
    """Panels from rows of `mart.dynamics`, each line with its phase change where `phase_changes` has one."""
    found = {tuple(row[name] for name in (*_PANEL[:-1], *_CURVE)): row for row in phase_changes}
    key = _sortable(_PANEL)
    made = []
    for _, of_panel in groupby(sorted(dynamics, key=key), key=key):
        rows = list(of_panel)
        n_draws = len({row["promptset_seed"] for row in rows})
        of_lines = groupby(sorted(rows, key=_sortable((*_CURVE, "step"))), key=_sortable(_CURVE))
        curves = [list(of_line) for _, of_line in of_lines]
        lines = [
            _line(curve, look, found, names_the_draw=n_draws > 1)
            for curve, look in zip(curves, _looks([str(curve[0]["model"]) for curve in curves]), strict=True)
        ]
        first = rows[0]
        variant = "" if first["variant"] in ("primary", "training") else f" / {first['variant']}"
        title = f"{first['measure']}{variant}"
        made.append(Panel(title, str(first["promptset"] or "while training"), str(first["unit"]), tuple(lines)))
    return made


def _sortable(names: Sequence[str]) -> Any:
    """A key of some columns that puts NULL first, whatever the others are."""
    return lambda row: tuple((row[name] is not None, row[name] if row[name] is not None else 0) for name in names)


def _looks(models: list[str]) -> list[tuple[int, int]]:
    """Colour and dashes of each line: a colour for each seed of one model, or for each of several models."""
    names = sorted(set(models))
    if len(names) == 1:
        return [(index % len(COLOURS), index // len(COLOURS) % len(DASHES)) for index in range(len(models))]
    seeds = [models[:index].count(model) for index, model in enumerate(models)]
    return [(names.index(model) % len(COLOURS), seed % len(DASHES)) for model, seed in zip(models, seeds, strict=True)]


def _line(
    rows: list[Row], look: tuple[int, int], phase_changes: dict[tuple[Any, ...], Row], *, names_the_draw: bool
) -> Line:
    first = rows[0]
    name = first["model"] if first["model_seed"] is None else f"{first['model']}[{first['model_seed']}]"
    if names_the_draw:
        name += f" · prompts[{first['promptset_seed']}]"
    points = tuple(
        (int(row["step"]), float(row["value"]), row["ci_low"], row["ci_high"])
        for row in rows
        if row["value"] is not None
    )
    change = phase_changes.get(tuple(first[each] for each in (*_PANEL[:-1], *_CURVE)), {})
    return Line(name, look, points, change.get("t50"), change.get("t50_low"), change.get("t50_high"))


def place(step: float) -> float:
    """Where a step lies on the axis."""
    return math.log1p(step)


def step_ticks(last: int) -> list[int]:
    """0, 1, and powers of ten up to the last step."""
    return [0, *(10**power for power in range(math.ceil(math.log10(last + 1)) + 1) if 10**power <= last)]


def step_text(step: int) -> str:
    """A step on the axis: thousands as k, millions as M."""
    for size, letter in ((10**6, "M"), (1000, "k")):
        if step >= size and step % size == 0:
            return f"{step // size}{letter}"
    return str(step)


def curves_svg(panel: Panel) -> str:
    """The panel as SVG: lines with their intervals, and a diamond at t50 with the interval of t50 beside it."""
    axes = _Axes(panel.last_step, panel.domain)
    lines = "".join(_line_svg(line, axes) for line in panel.lines)
    said = escape(f"{panel.title} by training step", quote=True)
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="width:{_WIDTH}px" role="img"'
        f' aria-label="{said}">{_frame(axes, panel.unit)}{lines}</svg>'
    )


def legend_key(line: Line) -> str:
    """A short stroke in the look of a panel's line."""
    return f'<svg class="key" viewBox="0 0 22 8" aria-hidden="true"><path {_look(line)} d="M0 4H22"/></svg>'


@dataclass(frozen=True)
class _Axes:
    last: int
    domain: tuple[float, float]

    def x(self, step: float) -> float:
        share = min(place(step) / place(self.last), 1.0)
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * share, 1)

    def y(self, value: float) -> float:
        low, high = self.domain
        share = (value - low) / ((high - low) or 1.0)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(max(share, 0.0), 1.0), 1)


def _frame(axes: _Axes, unit: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    low, high = axes.domain
    parts = []
    for value in (low, (low + high) / 2, high):
        parts.append(f'<path class="grid" d="M{_LEFT} {axes.y(value)}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{axes.y(value) + 4}" text-anchor="end">{number(value)}</text>')
    for step in step_ticks(axes.last):
        parts.append(f'<path class="grid" d="M{axes.x(step)} {_TOP}V{bottom + 3}"/>')
        parts.append(f'<text x="{axes.x(step)}" y="{bottom + 15}" text-anchor="middle">{step_text(step)}</text>')
    middle = (_TOP + bottom) // 2
    parts.append(f'<text class="axis" x="{(_LEFT + right) // 2}" y="{_HEIGHT - 5}" text-anchor="middle">step</text>')
    parts.append(
        f'<text class="axis" x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})">'
        f"{escape(unit)}</text>"
    )
    return "".join(parts)


def _line_svg(line: Line, axes: _Axes) -> str:
    parts = []
    if all(low is not None and high is not None for _, _, low, high in line.points):
        upper = [f"{axes.x(step)} {axes.y(high or 0.0)}" for step, _, _, high in line.points]
        lower = [f"{axes.x(step)} {axes.y(low or 0.0)}" for step, _, low, _ in reversed(line.points)]
        parts.append(f'<path class="spread c{line.look[0]}" d="M{"L".join(upper + lower)}Z"/>')
    points = [f"{axes.x(step)} {axes.y(value)}" for step, value, *_ in line.points]
    parts.append(f'<path {_look(line)} d="M{"L".join(points)}"/>')
    if line.t50 is not None:
        x, y = axes.x(line.t50), axes.y(line.value_at(line.t50))
        if line.t50_low is not None and line.t50_high is not None:
            parts.append(f'<path {_look(line, dashed=False)} d="M{axes.x(line.t50_low)} {y}H{axes.x(line.t50_high)}"/>')
        title = f"<title>{escape(line.name)}: t50 at step {number(line.t50, 0)}</title>"
        parts.append(
            f'<path class="t50 c{line.look[0]}" d="M{x} {y - 5:.1f}L{x + 5:.1f} {y}L{x} {y + 5:.1f}'
            f'L{x - 5:.1f} {y}Z">{title}</path>'
        )
    return "".join(parts)


def _look(line: Line, *, dashed: bool = True) -> str:
    dash = DASHES[line.look[1]] if dashed else ""
    return f'class="curve c{line.look[0]}"' + (f' stroke-dasharray="{dash}"' if dash else "")
