"""The ratios and the growth as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def draw(rows: list[dict[str, Any]], grown: list[dict[str, Any]], path: Path) -> None:
    """Left how many times faster, with the wanted ratio as a mark; right seconds against size."""
    rows = [row for row in rows if "ratio" in row]
    if not rows and not grown:
        return
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(15, max(4, 1 + 0.6 * len(rows))), layout="constrained", width_ratios=[3, 2]
    )
    draw_ratios(left, rows)
    draw_growth(right, grown)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_ratios(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Bars of how many times faster."""
    places = range(len(rows))
    axes.barh(places, [row["ratio"] for row in rows], color="#4477aa")
    axes.plot(
        [row["at_least"] or math.nan for row in rows],
        places,
        "|",
        color="black",
        markersize=18,
        label="wanted at least",
    )
    axes.set_yticks(places, [f"{row['what']}\nagainst {row['against']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times faster")
    axes.legend(loc="lower right", frameon=False)


def draw_growth(axes: Axes, grown: list[dict[str, Any]]) -> None:
    """Seconds of a sweep against what grows, relative to the smallest size."""
    for axis, by_position in sorted({(row["axis"], row["by_position"]) for row in grown}):
        line = [row for row in grown if (row["axis"], row["by_position"]) == (axis, by_position)]
        name = axis + (", head x position" if by_position else "")
        sizes = [row["size"] / line[0]["size"] for row in line]
        axes.plot(sizes, [row["seconds"] / line[0]["seconds"] for row in line], "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("size, relative to the smallest")
    axes.set_ylabel("seconds, relative to the smallest size")
    if grown:
        axes.legend(frameon=False)
