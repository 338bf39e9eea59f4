"""Pictures of the page: a measure in panels side by side with one legend, and which of them a page has room for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from storage.report.charts import Look
from storage.report.questions import Row

MOST_PICTURES = 48  # of a page, beside those of training and behaviors
MOST_PANELS = 12  # of a picture
N_COLOURS = 8
_LINES = ("masking", "curves")


@dataclass(frozen=True)
class Picture:
    """Panels (label, SVG) of one measure and a legend (SVG, name); `n_more` panels had no room.

    `kind` is circuits, overlaps, checkpoints, graphs, masking, curves, grids, profiles, maps or effects; those with
    the lowest `rank` are drawn first.
    """

    kind: str
    title: str
    panels: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...]
    n_more: int
    rank: tuple[Any, ...]


@dataclass(frozen=True)
class Looks:
    """A colour for each model of a page, the same in all of its pictures; baselines are grey and dashed."""

    colours: dict[str, int | None]

    def of(self, model: str, *, is_control: bool = False) -> Look:
        """How the lines of a model look; controls of any kind are dashed."""
        colour = self.colours.get(model)
        return Look(colour, is_control or colour is None)


def looks_of(trials: Iterable[Row]) -> Looks:
    """The looks of the models of a page, from rows of `mart.trials`."""
    baselines = {row["model"]: row["baseline"] for row in trials}
    learners = sorted(model for model, baseline in baselines.items() if baseline is None)
    return Looks(dict.fromkeys(baselines) | {model: place % N_COLOURS for place, model in enumerate(learners)})


def picture(kind: str, title: str, panels: Sequence[tuple[str, str]], rank: tuple[Any, ...], **about: Any) -> Picture:
    """A picture with as many panels as have room."""
    kept = tuple(panels[:MOST_PANELS])
    return Picture(kind, title, kept, tuple(about.get("legend", ())), len(panels) - len(kept), rank)


def chosen(
    pictures: Sequence[Sequence[Picture]], most: int = MOST_PICTURES
) -> tuple[list[list[Picture]], list[list[str]]]:
    """For each part of a page, the pictures it has room for and the titles of the others.

    Parts take turns, and in a part kinds do, so that each gets some; primary variants go before the others, and no
    control before what it controls.
    """
    queues = [_by_turns(of_part) for of_part in pictures]
    order = [(part, each) for turn in zip_longest(*queues) for part, each in enumerate(turn) if each is not None]
    kept = [[each for index, each in order[:most] if index == part] for part in range(len(queues))]
    left = [[each.title for index, each in order[most:] if index == part] for part in range(len(queues))]
    return kept, left


def _by_turns(pictures: Sequence[Picture]) -> list[Picture]:
    """Some of each kind after the other, in the order in which kinds come first: two of lines, one of maps."""
    kinds = dict.fromkeys(each.kind for each in pictures)
    queues = []
    for kind in kinds:
        of_kind = sorted((each for each in pictures if each.kind == kind), key=lambda each: each.rank)
        step = 2 if kind in _LINES else 1
        queues.append([of_kind[start : start + step] for start in range(0, len(of_kind), step)])
    turns = chain.from_iterable(zip_longest(*queues, fillvalue=[]))
    return list(chain.from_iterable(turns))


def method(row: Row) -> str:
    """Probe and variant."""
    return str(row["probe"]) if row["variant"] == "primary" else f"{row['probe']} / {row['variant']}"


def named(name: str, seed: int | None) -> str:
    """A model or a promptset with its seed in brackets."""
    return name if seed is None else f"{name}[{seed}]"


def star(rows: Iterable[Row]) -> str:
    """What marks some rows of which one rests on fewer than 30 prompts (METHODS 4); nothing where none does."""
    return "*" if any(row["is_descriptive"] for row in rows) else ""


def grouped(rows: Iterable[Row], *names: str) -> list[list[Row]]:
    """Rows that agree in the named columns, sorted by them; NULL comes first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple((row[name] is not None, row[name]) for name in names), []).append(row)
    return [groups[key] for key in sorted(groups, key=lambda key: tuple((a, b if a else 0) for a, b in key))]
