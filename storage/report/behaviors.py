"""The table of behaviors as drawings of the page: a row a behavior, a column a model, a mark for each of its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from storage.report.drawings import number
from storage.report.questions import Row

THRESHOLD = 0.9  # what the lower bound of a learnt behavior exceeds
_LEFT, _RIGHT, _WIDTH = 6, 88, 172
_STEP, _TOP = 18, 3  # pixels from seed to seed, and above the first
_RADIUS = 4.2


@dataclass(frozen=True)
class Mark:
    """The accuracy of one model, of one seed, on one behavior; None is unknown. All are fractions, 0 .. 1."""

    seed: int | None
    accuracy: float | None
    low: float | None
    high: float | None
    chance: float | None
    best_baseline: float | None
    is_learnt: bool | None

    @property
    def verdict(self) -> str:
        """In words, so that no shape or colour has to be known."""
        return {True: "learnt", False: "not learnt", None: "unknown"}[self.is_learnt]

    @property
    def short_verdict(self) -> str:
        """The verdict where there is little room."""
        return {True: "learnt", False: "not", None: "?"}[self.is_learnt]


@dataclass(frozen=True)
class Grid:
    """Marks by behavior and model, in the order in which they are drawn."""

    behaviors: tuple[str, ...]
    models: tuple[str, ...]
    marks: dict[tuple[str, str], tuple[Mark, ...]]

    def of(self, behavior: str, model: str) -> tuple[Mark, ...]:
        """The marks of a model, one a seed; none where it was not asked."""
        return self.marks.get((behavior, model), ())


def grid(rows: Sequence[Row]) -> Grid:
    """The grid of some rows of `mart.behavior_table`; a promptset's seed is named where several were drawn."""
    draws = {(row["promptset"], row["promptset_seed"]) for row in rows}
    several = len(draws) > len({promptset for promptset, _ in draws})
    marks: dict[tuple[str, str], list[Mark]] = {}
    for row in rows:
        behavior = f"{row['promptset']}[{row['promptset_seed']}]" if several else row["promptset"]
        mark = Mark(
            row["model_seed"],
            row["accuracy"],
            row["ci_low"],
            row["ci_high"],
            row["chance"],
            row["best_baseline"],
            row["is_learnt"],
        )
        marks.setdefault((behavior, row["model"]), []).append(mark)
    behaviors, models = (tuple(dict.fromkeys(key[axis] for key in marks)) for axis in (0, 1))
    return Grid(behaviors, models, {key: tuple(each) for key, each in marks.items()})


def behavior_svg(behavior: str, model: str, marks: Sequence[Mark]) -> str:
    """The marks of one model on one behavior below each other, on a line from 0 to 1, each with its number and verdict.

    Circle: the accuracy, filled where the behavior is learnt, open where it is not, a diamond where that is unknown;
    line: its 95% interval; bar: chance; cross: the best baseline; dots: the threshold.
    """
    if not marks:
        return '<span class="quiet">–</span>'
    height = 2 * _TOP + _STEP * len(marks)
    parts = [f'<path class="grid" d="M{_x(at)} 0V{height}"/>' for at in (0.0, 0.5, 1.0)]
    parts.append(f'<path class="threshold" d="M{_x(THRESHOLD)} 0V{height}"/>')
    parts += [_mark(model, each, _TOP + _STEP * index + _STEP // 2) for index, each in enumerate(marks)]
    said = escape(f"{behavior}: {model}", quote=True)
    return (
        f'<svg class="behaviors" viewBox="0 0 {_WIDTH} {height}" style="width:{_WIDTH}px" role="img"'
        f' aria-label="{said}">{"".join(parts)}</svg>'
    )


def axis_svg() -> str:
    """The axis below a column."""
    texts = "".join(f'<text x="{_x(at)}" y="11" text-anchor="middle">{number(at)}</text>' for at in (0.0, 0.5, 1.0))
    return f'<svg class="behaviors" viewBox="0 0 {_WIDTH} 15" style="width:{_WIDTH}px" aria-hidden="true">{texts}</svg>'


def key_svg(kind: str) -> str:
    """What the legend shows of one kind of mark: learnt, not learnt, unknown, interval, chance, baseline, threshold."""
    drawn = {
        "learnt": '<circle class="learnt" cx="11" cy="8" r="4.2"/>',
        "not learnt": '<circle class="open" cx="11" cy="8" r="4.2"/>',
        "unknown": _diamond(11, 8),
        "interval": '<path class="ends" d="M2 8H20"/>',
        "chance": '<path class="chance" d="M11 2V14"/>',
        "baseline": _cross(11, 8),
        "threshold": '<path class="threshold" d="M11 0V16"/>',
    }[kind]
    return f'<svg class="behaviors key" viewBox="0 0 22 16" aria-hidden="true">{drawn}</svg>'


def _mark(model: str, mark: Mark, y: int) -> str:
    parts = []
    if mark.chance is not None:
        parts.append(f'<path class="chance" d="M{_x(mark.chance)} {y - 6}V{y + 6}"/>')
    if mark.best_baseline is not None:
        parts.append(_cross(_x(mark.best_baseline), y))
    if mark.low is not None and mark.high is not None:
        parts.append(f'<path class="ends" d="M{_x(mark.low)} {y}H{_x(mark.high)}"/>')
    if mark.accuracy is not None:
        parts.append(_point(mark, _x(mark.accuracy), y))
    weight = ' class="axis"' if mark.is_learnt else ""
    text = f"{number(mark.accuracy, 2)} {mark.short_verdict}"
    parts.append(f'<text{weight} x="{_RIGHT + 11}" y="{y + 4}">{text}</text>')
    return f"<g><title>{escape(_said(model, mark))}</title>{''.join(parts)}</g>"


def _said(model: str, mark: Mark) -> str:
    name = model if mark.seed is None else f"{model}[{mark.seed}]"
    ends = f"[{number(mark.low, 3)}, {number(mark.high, 3)}]"
    beside = f"chance {number(mark.chance, 3)}, best baseline {number(mark.best_baseline, 3)}"
    return f"{name}: {number(mark.accuracy, 3)} {ends}, {beside}: {mark.verdict}"


def _point(mark: Mark, x: float, y: int) -> str:
    if mark.is_learnt is None:
        return _diamond(x, y)
    return f'<circle class="{"learnt" if mark.is_learnt else "open"}" cx="{x}" cy="{y}" r="{_RADIUS}"/>'


def _diamond(x: float, y: int) -> str:
    return f'<path class="open" d="M{x - 5:.1f} {y}L{x:.1f} {y - 5}L{x + 5:.1f} {y}L{x:.1f} {y + 5}Z"/>'


def _cross(x: float, y: int) -> str:
    return f'<path class="baseline" d="M{x - 3.5:.1f} {y - 3.5}l7 7m0 -7l-7 7"/>'


def _x(share: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0), 1)
