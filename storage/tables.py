"""What a row of each raw table must be: names, types, ranges and keys, checked before anything is stored.

NULL means not measured; NaN becomes NULL where NULL is allowed, and an infinite number is always refused. Only this
module and `validating` import pandera.
"""

from __future__ import annotations

import json

import pandera.polars as pa
import polars as pl

LEVELS = ["head", "behavior", "intervention"]
STATUSES = ["delivered", "failed", "not_applicable"]
UTC_TIME = pl.Datetime("us", "UTC")


def _text(values: list[str] | None = None) -> pa.Column:
    """Text that is never empty."""
    check = pa.Check.isin(values) if values else pa.Check.str_length(min_value=1)
    return pa.Column(pl.String, check)


def _optional_text(values: list[str] | None = None) -> pa.Column:
    return pa.Column(pl.String, pa.Check.isin(values) if values else None, nullable=True)


def _json() -> pa.Column:
    return pa.Column(pl.String, pa.Check(_all_json, error="valid JSON"))


def _flag() -> pa.Column:
    return pa.Column(pl.Boolean)


def _time() -> pa.Column:
    return pa.Column(UTC_TIME)


def _count(least: int = 0, *, nullable: bool = False) -> pa.Column:
    """A whole number from `least` on: a count, or an index along an axis."""
    return pa.Column(pl.Int64, pa.Check.ge(least), nullable=nullable)


def _clusters() -> pa.Column:
    """How many clusters of prompts entered; NULL where prompts are not clustered or none was measured, never 0."""
    return _count(1, nullable=True)


def _seed() -> pa.Column:
    """A seed; NULL where nothing was drawn at random."""
    return pa.Column(pl.Int64, nullable=True)


def _number(low: float | None = None, high: float | None = None) -> pa.Column:
    """A measured number within closed bounds; NULL where it could not be measured."""
    checks = [pa.Check.ge(low)] if low is not None else []
    checks += [pa.Check.le(high)] if high is not None else []
    return pa.Column(pl.Float64, checks, nullable=True)


def _ordered(low: str, high: str) -> pa.Check:
    """`low <= high` in every row that has both."""

    def holds(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(low) <= pl.col(high)).fill_null(True))

    return pa.Check(holds, error=f"{low} <= {high}")


def _error_fits_status(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("error").is_null() == (pl.col("status") == "delivered"))


def _reason_fits_verdict(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("reason").is_null() == (pl.col("verdict") == "holds"))


def _accuracy_is_a_share(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(~pl.col("is_accuracy") | pl.col("value").is_between(0, 1).fill_null(True))


def _all_json(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key).map_elements(_is_json, return_dtype=pl.Boolean))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _table(key: list[str], *checks: pa.Check, **columns: pa.Column) -> pa.DataFrameSchema:
    """A table of exactly these columns, one row per key; nothing is converted while it is checked."""
    return pa.DataFrameSchema(columns, checks=list(checks), unique=key, strict=True, coerce=False)


_INTERVAL = _ordered("ci_low", "ci_high")

TABLES: dict[str, pa.DataFrameSchema] = {
    "trials": _table(
        ["delivery_id"],
        _ordered("low", "high"),
        pa.Check(_error_fits_status, error="an error exactly where the status is not delivered"),
        delivery_id=_text(),
        trial_id=_text(),
        model=_text(),
        model_seed=_seed(),
        step=_count(nullable=True),
        promptset=_text(),
        promptset_seed=_seed(),
        is_control=_flag(),
        baseline=_optional_text(["untrained", "bigram"]),
        probe=_text(),
        variant=_text(),
        probe_seed=_seed(),
        level=_text(LEVELS),
        unit=_text(),
        low=_number(),
        high=_number(),
        status=_text(STATUSES),
        error=_optional_text(),
        delivered_at=_time(),
        seconds=_number(low=0),
        forwards=_count(nullable=True),
        device=_optional_text(),
        dtype=_optional_text(),
        code=_optional_text(),
        versions=_json(),
        identity=_json(),
        spec=_json(),
    ),
    "answers": _table(
        ["study", "trial_id"],
        study=_text(),
        trial_id=_text(),
        delivery_id=_text(),
        answered_at=_time(),
        previous_delivery_id=_optional_text(),  # NULL where nothing was delivered before, or the same
    ),
    "item_scores": _table(  # layer and head are NULL where the model as a whole is measured
        ["delivery_id", "layer", "head", "item"],
        delivery_id=_text(),
        layer=_count(nullable=True),
        head=_count(nullable=True),
        item=_count(),
        value=_number(),
    ),
    "head_scores": _table(
        ["delivery_id", "layer", "head"],
        _INTERVAL,
        delivery_id=_text(),
        layer=_count(),
        head=_count(),
        score=_number(),
        ci_low=_number(),
        ci_high=_number(),
        n_items=_count(nullable=True),  # NULL where the weights alone were read
        n_clusters=_clusters(),
    ),
    "head_effects": _table(
        ["delivery_id", "layer", "head", "position_label"],
        _INTERVAL,
        _ordered("normalised_low", "normalised_high"),
        delivery_id=_text(),
        intervention=_text(),
        layer=_count(),
        head=_count(),
        position_label=_optional_text(),
        effect=_number(),
        ci_low=_number(),
        ci_high=_number(),
        normalised_effect=_number(),
        normalised_low=_number(),
        normalised_high=_number(),
        n_items=_count(),
        n_clusters=_clusters(),
    ),
    "behavior": _table(
        ["delivery_id", "readout"],
        _INTERVAL,
        pa.Check(_accuracy_is_a_share, error="an accuracy between 0 and 1"),
        delivery_id=_text(),
        readout=_text(),
        value=_number(),
        is_accuracy=_flag(),
        ci_low=_number(),
        ci_high=_number(),
        chance=_number(),
        n_items=_count(),
        n_clusters=_clusters(),
    ),
    "controls": _table(
        ["delivery_id", "k"],
        _INTERVAL,
        _ordered("control_low", "control_high"),
        delivery_id=_text(),
        k=_count(1),
        value=_number(),
        ci_low=_number(),
        ci_high=_number(),
        control_mean=_number(),
        control_low=_number(),
        control_high=_number(),
        n_draws=_count(nullable=True),
        n_distinct=_count(nullable=True),
        p_value=_number(0, 1),
        n_items=_count(),
        n_clusters=_clusters(),
    ),
    "reliability": _table(
        ["delivery_id"],
        delivery_id=_text(),
        split_half=_number(-1, 1),
        spearman_brown=_number(high=1),
        top_k=_count(1, nullable=True),
        top_k_jaccard=_number(0, 1),
        n_items=_count(),
    ),
    "comparisons": _table(
        ["study", "claim"],
        _INTERVAL,
        pa.Check(_reason_fits_verdict, error="a reason exactly where the claim does not hold"),
        comparison_id=_text(),
        study=_text(),
        claim=_text(),
        description=pa.Column(pl.String),
        expected=_text(["above", "below", "within"]),
        found=_number(),
        control=_number(),
        difference=_number(),
        ci_low=_number(),
        ci_high=_number(),
        n=_count(),
        verdict=_text(["holds", "does not hold", "cannot be tested"]),
        reason=_optional_text(),
        level=_number(0, 1),
        margin=_number(0),
        least_n=_count(2),
        unit=_text(),
        found_sql=_text(),
        control_sql=_optional_text(),
    ),
    "phase_changes": _table(  # promptset and probe are NULL where the training itself measured
        ["study", "model", "model_seed", "promptset", "promptset_seed", "probe", "variant", "measure"],
        _ordered("t50_low", "t50_high"),
        comparison_id=_text(),
        study=_text(),
        model=_text(),
        model_seed=_seed(),
        promptset=_optional_text(),
        promptset_seed=_seed(),
        probe=_optional_text(),
        variant=_text(),
        measure=_text(),
        t50=_number(0),
        t50_low=_number(0),
        t50_high=_number(0),
        width=_number(0),
        rise=_number(),
        bic_gain=_number(),
        n_steps=_count(1),
        verdict=_text(["phase change", "none"]),
    ),
    "training": _table(
        ["training_id", "step", "measure"],
        _INTERVAL,
        training_id=_text(),
        model=_text(),
        model_seed=_seed(),
        step=_count(),
        measure=_text(),
        value=_number(),
        unit=_text(),
        ci_low=_number(),
        ci_high=_number(),
        n_items=_count(nullable=True),
    ),
    "recordings": _table(
        ["study", "model", "model_seed", "promptset", "promptset_seed"],
        study=_text(),
        model=_text(),
        model_seed=_seed(),
        promptset=_text(),
        promptset_seed=_seed(),
        mlflow_run_id=_text(),
        recorded_at=_time(),
    ),
}


def column_types(table: str) -> dict[str, tuple[pl.DataType, bool]]:
    """Each column's polars type and whether it may be NULL, in the order of ARCHITECTURE.md."""
    columns = TABLES[table].columns
    return {name: (column.dtype.type, bool(column.nullable)) for name, column in columns.items()}
