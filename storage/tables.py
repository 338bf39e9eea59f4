"""What a row of each raw table must be: names, types, ranges and keys, checked before anything is stored.

NULL means not measured; NaN becomes NULL where NULL is allowed, and an infinite number is always refused. Only this
module, `columns` and `validating` import pandera.
"""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from storage.circuit_tables import CIRCUIT_TABLES
from storage.columns import (
    cluster_count,
    count,
    flag,
    json_text,
    number,
    optional_text,
    ordered,
    place,
    seed,
    table,
    text,
    utc_time,
)

LEVELS = ["head", "behavior", "intervention", "curve", "circuit"]
STATUSES = ["delivered", "failed", "not_applicable"]


def _error_fits_status(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("error").is_null() == (pl.col("status") == "delivered"))


def _reason_fits_verdict(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col("reason").is_null() == (pl.col("verdict") == "holds"))


def _accuracy_is_a_share(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(~pl.col("is_accuracy") | pl.col("value").is_between(0, 1).fill_null(True))


_INTERVAL = ordered("ci_low", "ci_high")

TABLES: dict[str, pa.DataFrameSchema] = {
    "trials": table(
        ["delivery_id"],
        ordered("low", "high"),
        pa.Check(_error_fits_status, error="an error exactly where the status is not delivered"),
        delivery_id=text(),
        trial_id=text(),
        model=text(),
        model_seed=seed(),
        step=count(nullable=True),
        promptset=text(),
        promptset_seed=seed(),
        is_control=flag(),
        baseline=optional_text(["untrained", "bigram"]),
        probe=text(),
        variant=text(),
        probe_seed=seed(),
        level=text(LEVELS),
        unit=text(),
        low=number(),
        high=number(),
        status=text(STATUSES),
        error=optional_text(),
        delivered_at=utc_time(),
        seconds=number(low=0),
        forwards=count(nullable=True),
        device=optional_text(),
        dtype=optional_text(),
        code=optional_text(),
        versions=json_text(),
        identity=json_text(),
        spec=json_text(),
    ),
    "answers": table(
        ["study", "trial_id"],
        study=text(),
        trial_id=text(),
        delivery_id=text(),
        answered_at=utc_time(),
        previous_delivery_id=optional_text(),  # NULL where nothing was delivered before, or the same
    ),
    "item_scores": table(  # layer and head are NULL where the model as a whole is measured
        ["delivery_id", "layer", "head", "item"],
        delivery_id=text(),
        layer=count(nullable=True),
        head=count(nullable=True),
        item=count(),
        value=number(),
    ),
    "head_scores": table(
        ["delivery_id", "layer", "head"],
        _INTERVAL,
        delivery_id=text(),
        layer=count(),
        head=count(),
        score=number(),
        ci_low=number(),
        ci_high=number(),
        n_items=count(nullable=True),  # NULL where the weights alone were read
        n_clusters=cluster_count(),
    ),
    "head_effects": table(
        ["delivery_id", "layer", "head", "position_label"],
        _INTERVAL,
        ordered("normalised_low", "normalised_high"),
        delivery_id=text(),
        intervention=text(),
        layer=count(),
        head=count(),
        position_label=optional_text(),
        effect=number(),
        ci_low=number(),
        ci_high=number(),
        normalised_effect=number(),
        normalised_low=number(),
        normalised_high=number(),
        n_items=count(),
        n_clusters=cluster_count(),
    ),
    "behavior": table(
        ["delivery_id", "readout"],
        _INTERVAL,
        pa.Check(_accuracy_is_a_share, error="an accuracy between 0 and 1"),
        delivery_id=text(),
        readout=text(),
        value=number(),
        is_accuracy=flag(),
        ci_low=number(),
        ci_high=number(),
        chance=number(),
        n_items=count(),
        n_clusters=cluster_count(),
    ),
    "controls": table(
        ["delivery_id", "k"],
        _INTERVAL,
        ordered("control_low", "control_high"),
        delivery_id=text(),
        k=count(1),
        value=number(),
        ci_low=number(),
        ci_high=number(),
        control_mean=number(),
        control_low=number(),
        control_high=number(),
        n_draws=count(nullable=True),
        n_distinct=count(nullable=True),
        p_value=number(0, 1),
        n_items=count(),
        n_clusters=cluster_count(),
    ),
    "curves": table(
        ["delivery_id", "measure", "x_name", "x"],
        _INTERVAL,
        delivery_id=text(),
        measure=text(),
        x_name=text(),
        x=place(),
        value=number(),
        ci_low=number(),
        ci_high=number(),
        n_items=count(),
        n_clusters=cluster_count(),
        unit=text(),  # a probe's curves may differ in it
    ),
    "curve_items": table(
        ["delivery_id", "measure", "x_name", "x", "item"],
        delivery_id=text(),
        measure=text(),
        x_name=text(),
        x=place(),
        item=count(),
        value=number(),
    ),
    "item_conditions": table(
        ["delivery_id", "item", "condition"],
        delivery_id=text(),
        item=count(),
        condition=text(),
        value=number(),
    ),
    "reliability": table(
        ["delivery_id"],
        delivery_id=text(),
        split_half=number(-1, 1),
        spearman_brown=number(high=1),
        top_k=count(1, nullable=True),
        top_k_jaccard=number(0, 1),
        n_items=count(),
    ),
    "comparisons": table(
        ["study", "claim"],
        _INTERVAL,
        pa.Check(_reason_fits_verdict, error="a reason exactly where the claim does not hold"),
        comparison_id=text(),
        study=text(),
        claim=text(),
        description=pa.Column(pl.String),
        expected=text(["above", "below", "within"]),
        found=number(),
        control=number(),
        difference=number(),
        ci_low=number(),
        ci_high=number(),
        n=count(),
        verdict=text(["holds", "does not hold", "cannot be tested"]),
        reason=optional_text(),
        level=number(0, 1),
        margin=number(0),
        least_n=count(2),
        unit=text(),
        found_sql=text(),
        control_sql=optional_text(),
    ),
    "phase_changes": table(  # promptset and probe are NULL where the training itself measured
        ["study", "model", "model_seed", "promptset", "promptset_seed", "probe", "variant", "measure"],
        ordered("t50_low", "t50_high"),
        comparison_id=text(),
        study=text(),
        model=text(),
        model_seed=seed(),
        promptset=optional_text(),
        promptset_seed=seed(),
        probe=optional_text(),
        variant=text(),
        measure=text(),
        t50=number(0),
        t50_low=number(0),
        t50_high=number(0),
        width=number(0),
        rise=number(),
        bic_gain=number(),
        n_steps=count(1),
        verdict=text(["phase change", "none"]),
    ),
    "training": table(
        ["training_id", "step", "measure"],
        _INTERVAL,
        training_id=text(),
        model=text(),
        model_seed=seed(),
        step=count(),
        measure=text(),
        value=number(),
        unit=text(),
        ci_low=number(),
        ci_high=number(),
        n_items=count(nullable=True),
    ),
    "recordings": table(
        ["study", "model", "model_seed", "promptset", "promptset_seed"],
        study=text(),
        model=text(),
        model_seed=seed(),
        promptset=text(),
        promptset_seed=seed(),
        mlflow_run_id=text(),
        recorded_at=utc_time(),
    ),
    **CIRCUIT_TABLES,
}


def column_types(table: str) -> dict[str, tuple[pl.DataType, bool]]:
    """Each column's polars type and whether it may be NULL, in the order of ARCHITECTURE.md."""
    columns = TABLES[table].columns
    return {name: (column.dtype.type, bool(column.nullable)) for name, column in columns.items()}
