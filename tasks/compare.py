"""Comparisons on published results: phase changes of curves over training, and the claims of a study."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mneme.errors import BadInput
from storage.curves import AXES, Curve, read_curves
from storage.files import sha256_file
from storage.home import Home
from storage.identity import code_parts, digest, versions
from storage.specs import ClaimSpec, PhaseChangesSpec, RecipeSource, TrialSpec
from tasks.stage import Value, stage
from tasks.training import training_id

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_logger = logging.getLogger("mneme")
_ERRORS_IN_95_PERCENT = 3.92  # standard errors from the lower to the upper end of a 95% interval
Row = dict[str, Any]


def curve_ids(trials: Iterable[TrialSpec]) -> set[str]:
    """The ids under which `mart.dynamics` shows these trials and the trainings of their models."""
    asked = list(trials)
    trained = [trial for trial in asked if isinstance(trial.model_spec.source, RecipeSource)]
    return {trial.trial_id for trial in asked} | {training_id(trial) for trial in trained}


def find_phase_changes(home: Home, study: str, asked: PhaseChangesSpec | None, trial_ids: Iterable[str]) -> list[Row]:
    """Search each curve of the asked measures for a phase change; returns the rows of `raw.phase_changes`.

    A curve with too few measured steps has no row: the log says so.
    """
    curves = [] if asked is None else read_curves(home, asked.measures, trial_ids)
    for measure in () if asked is None else asked.measures:
        if not any(curve["measure"] == measure for curve in curves):
            _logger.warning("study %s asks for phase changes of %s, and no trial measured it by steps", study, measure)
    found = []
    for curve in curves:
        comparison_id = digest({"kind": "phase change", "curve": curve})
        label = f"{study} / {curve['model']}[{curve['model_seed']}] / {curve['measure']}"
        key = _key("phase-change", comparison_id, "mneme.phase_change")
        value = phase_change.run(home, key, label, {"curve": curve})
        if "too_few" in value:
            _logger.warning("%s: %s", label, value["too_few"])
        else:
            axes = {name: curve[name] for name in AXES}
            found.append({"comparison_id": comparison_id, "study": study, **axes, **value["row"]})
    return found


def judge_claims(
    home: Home, study: str, claims: Mapping[str, ClaimSpec], ids: Iterable[str], *, seed: int
) -> list[Row]:
    """Judge each claim on what is published of these trials and trainings; returns the rows of `raw.comparisons`."""
    from storage.reader import reading_part

    if not claims:
        return []
    with reading_part(home, ids) as marts:
        found = {name: _units(marts, spec) for name, spec in claims.items()}
    return [_claim_row(home, study, (name, claims[name]), each, seed) for name, each in found.items()]


def deliver_comparisons(home: Home, table: str, study: str, rows: Sequence[Row]) -> bool:
    """Make the lake's file of a study's comparisons hold these rows; whether anything changed.

    The rows replace those of an earlier run, so that a claim that the study has dropped goes.
    """
    path = home.lake / table / f"{study}.parquet"
    if not rows and not path.is_file():
        return False
    import polars as pl

    from storage.lake import Lake
    from storage.tables import column_types

    before = sha256_file(path) if path.is_file() else None
    schema = {name: dtype for name, (dtype, _) in column_types(table).items()}
    return Lake(home.lake).deliver(table, study, pl.DataFrame(list(rows), schema=schema)).sha256 != before


@stage("phase change")
def phase_change(home: Home, curve: Curve) -> Value:  # noqa: ARG001  every stage is given the home
    """Fit one curve; its t50 gets an interval where every step has one."""
    from mneme.phase_change import LEAST_STEPS
    from mneme.phase_change import phase_change as find

    steps, values, lows, highs = zip(*curve["points"], strict=True)
    if len(steps) < LEAST_STEPS:
        return {"too_few": f"a phase change needs {LEAST_STEPS} measured steps, and the curve has {len(steps)}"}
    errors = None
    if None not in lows and None not in highs:
        errors = [(high - low) / _ERRORS_IN_95_PERCENT for low, high in zip(lows, highs, strict=True)]
    return {"row": _without_nan(asdict(find(steps, values, errors=errors)))}


@stage("claim")
def claim(
    home: Home,  # noqa: ARG001  every stage is given the home
    found: Mapping[str, float | None],
    control: Mapping[str, float | None] | None,
    expected: Mapping[str, Any],
    seed: int,
) -> Value:
    """Judge one claim on the values of its units."""
    from mneme.claims import Claim, judge

    sides = [None if side is None else _with_nan(side) for side in (found, control)]
    return {"row": _without_nan(asdict(judge(sides[0] or {}, sides[1], Claim(**expected), seed=seed)))}


def _claim_row(
    home: Home, study: str, named: tuple[str, ClaimSpec], found: tuple[dict[str, Any], str | None], seed: int
) -> Row:
    (name, spec), (units, problem) = named, found
    expected = {key: getattr(spec, key) for key in ("expected", "margin", "level", "least_n")}
    asked = {**expected, "unit": spec.unit, "found_sql": spec.found, "control_sql": spec.control}
    comparison_id = digest({"kind": "claim", "units": units, "asked": asked, "seed": seed, "problem": problem})
    about = {"comparison_id": comparison_id, "study": study, "claim": name, "description": spec.description, **asked}
    if problem is not None:
        return {**about, "n": 0, "verdict": "cannot be tested", "reason": problem}
    inputs = {**units, "expected": expected, "seed": seed}
    row = claim.run(home, _key("claim", comparison_id, "mneme.claims"), f"{study} / {name}", inputs)["row"]
    if row["verdict"] == "cannot be tested" and spec.needs:
        row = {**row, "reason": f"{row['reason']}; a unit needs {spec.needs}"}
    return {**about, **row}


def _units(marts: DuckDBPyConnection, spec: ClaimSpec) -> tuple[dict[str, Any], str | None]:
    """What the claim's selects find, None where there is no control; and why they cannot be used, if so."""
    from storage.claim_queries import units_of

    units: dict[str, Any] = {}
    for side, sql in (("found", spec.found), ("control", spec.control)):
        try:
            units[side] = None if sql is None else _without_nan(units_of(marts, sql))
        except BadInput as error:
            return {}, f"`{side}` {error}"
    return units, None


def _key(stage: str, comparison_id: str, module: str) -> str:
    """The cache key of a comparison: what is compared, and the code that compares."""
    parts = {"comparison": comparison_id, "numpy": versions()["numpy"], **code_parts([module])}
    return f"{stage}-{digest(parts)}"


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(each, float) and math.isnan(each) else each for name, each in values.items()}


def _with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if each is None else each for name, each in values.items()}
