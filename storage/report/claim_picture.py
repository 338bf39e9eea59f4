"""All claims of a study in one drawing: differences with their intervals against what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from storage.report.drawings import number

_LINE, _TOP = 20, 6
_NAME, _MIDDLE, _HALF = 10, 660, 210  # pixels: where names begin, where zero lies, and how far a line reaches
_WIDTH = 980
_LOOKS = {"holds": "good", "does not hold": "bad"}


def claims_svg(parts: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """A line per claim (rows of `mart.comparisons`): dot, interval, and the range where the difference was expected.

    `parts` are the claims by part of the study, under the name of the part where it has one.

    Each line has a scale of its own, with zero in the middle and the largest of the margin and the ends of the
    interval at a side, since units differ. Colour and word tell the verdict; what cannot be tested has no dot.
    """
    lines: list[str] = []
    for name, rows in parts:
        lines += [_heading(name, _middle(len(lines)))] if name and rows else []
        for row in rows:
            lines.append(_line(row, _middle(len(lines))))
    height = 2 * _TOP + _LINE * len(lines)
    zero = f'<path class="zero" d="M{_MIDDLE} 0V{height}"/>'
    return (
        f'<svg class="claims" viewBox="0 0 {_WIDTH} {height}" style="width:{_WIDTH}px" role="img"'
        f' aria-label="claims with their intervals">{zero}{"".join(lines)}</svg>'
    )


def _middle(index: int) -> int:
    return _TOP + _LINE * index + _LINE // 2


def _heading(name: str, y: int) -> str:
    return f'<text class="heading" x="{_NAME}" y="{y + 5}">{escape(name)}</text>'


def _line(row: dict[str, Any], y: int) -> str:
    look = _LOOKS.get(row["verdict"], "open")
    half = _scale(row)
    parts = [f'<text x="{_NAME + 12}" y="{y + 4}">{escape(_shortened(row["claim"]))}</text>']
    low, high = _wanted(row, half)
    parts.append(f'<rect class="band" x="{_x(low, half)}" y="{y - 6}" width="{_extent(low, high, half)}" height="12"/>')
    if row["ci_low"] is not None and row["ci_high"] is not None:
        parts.append(f'<path class="ends {look}" d="M{_x(row["ci_low"], half)} {y}H{_x(row["ci_high"], half)}"/>')
    if row["difference"] is not None and row["ci_low"] is not None:
        parts.append(f'<circle class="{look}" cx="{_x(row["difference"], half)}" cy="{y}" r="3.6"/>')
    parts.append(f'<text class="{look}" x="{_MIDDLE + _HALF + 10}" y="{y + 4}">{escape(str(row["verdict"]))}</text>')
    return f'<g class="claim"><title>{escape(_said(row))}</title>{"".join(parts)}</g>'


def _scale(row: dict[str, Any]) -> float:
    """What the side of the line stands for, in the unit of the claim."""
    known = [abs(row[name]) for name in ("ci_low", "ci_high", "difference") if row[name] is not None]
    return max([*known, 1.25 * row["margin"]]) or 1.0


def _wanted(row: dict[str, Any], half: float) -> tuple[float, float]:
    margin = row["margin"]
    return {"above": (margin, half), "below": (-half, -margin), "within": (-margin, margin)}[row["expected"]]


def _x(value: float, half: float) -> float:
    return round(_MIDDLE + _HALF * min(max(value / half, -1.0), 1.0), 1)


def _extent(low: float, high: float, half: float) -> float:
    return round(max(_x(high, half) - _x(low, half), 1.0), 1)


def _shortened(name: str) -> str:
    return name if len(name) <= 64 else name[:63] + "…"


def _said(row: dict[str, Any]) -> str:
    ends = f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"
    return f"{row['claim']}: {number(row['difference'])} {ends} {row['unit']}, n {row['n']}: {row['verdict']}"
