"""The ratios as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of how many times faster, with the wanted ratio as a mark."""
    rows = [row for row in rows if "ratio" in row]
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(9, 1 + 0.6 * len(rows)), layout="constrained")
    places = range(len(rows))
    axes.barh(places, [row["ratio"] for row in rows], color="#4477aa")
    axes.plot([row["at_least"] for row in rows], places, "|", color="black", markersize=18, label="wanted at least")
    axes.set_yticks(places, [f"{row['what']}\nagainst {row['against']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times faster")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
