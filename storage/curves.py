"""Curves over training steps, read from the published results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from storage.home import Home
from storage.rows import rows

AXES = ("model", "model_seed", "promptset", "promptset_seed", "probe", "variant", "measure")
_POINTS = ("step", "value", "ci_low", "ci_high")
_CURVES = """
    select model, model_seed, promptset, promptset_seed, probe, variant, measure, step, value, ci_low, ci_high
    from mart.dynamics
    where value is not null and list_contains(?, measure) and list_contains(?, trial_id)
    order by all
"""
Curve = dict[str, Any]


def read_curves(home: Home, measures: Sequence[str], trial_ids: Iterable[str]) -> list[Curve]:
    """Curves of some measures in some trials (or trainings): the axes that name one, and `points` in order of steps.

    Each point is [step, value, ci_low, ci_high]; what is missing in it is None.
    """
    found = rows(home, _CURVES, [list(measures), list(trial_ids)])
    return [
        {**dict(zip(AXES, axes, strict=True)), "points": [[each[name] for name in _POINTS] for each in points]}
        for axes, points in groupby(found, key=lambda row: tuple(row[name] for name in AXES))
    ]
