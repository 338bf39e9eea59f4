"""The kinds of columns that raw tables are made of: what each holds, and whether it may be NULL."""

from __future__ import annotations

import json

import pandera.polars as pa
import polars as pl

Schema = pa.DataFrameSchema
UTC_TIME = pl.Datetime("us", "UTC")


def text(values: list[str] | None = None) -> pa.Column:
    """Text that is never empty."""
    check = pa.Check.isin(values) if values else pa.Check.str_length(min_value=1)
    return pa.Column(pl.String, check)


def optional_text(values: list[str] | None = None) -> pa.Column:
    """Text, or NULL where there is none."""
    return pa.Column(pl.String, pa.Check.isin(values) if values else None, nullable=True)


def json_text() -> pa.Column:
    """A JSON document."""
    return pa.Column(pl.String, pa.Check(_all_json, error="valid JSON"))


def flag() -> pa.Column:
    """True or false."""
    return pa.Column(pl.Boolean)


def utc_time() -> pa.Column:
    """An instant, in UTC."""
    return pa.Column(UTC_TIME)


def count(least: int = 0, *, nullable: bool = False) -> pa.Column:
    """A whole number from `least` on: a count, or an index along an axis."""
    return pa.Column(pl.Int64, pa.Check.ge(least), nullable=nullable)


def cluster_count() -> pa.Column:
    """How many clusters of prompts entered; NULL where prompts are not clustered or none was measured, never 0."""
    return count(1, nullable=True)


def seed() -> pa.Column:
    """A seed; NULL where nothing was drawn at random."""
    return pa.Column(pl.Int64, nullable=True)


def number(low: float | None = None, high: float | None = None) -> pa.Column:
    """A measured number within closed bounds; NULL where it could not be measured."""
    checks = [pa.Check.ge(low)] if low is not None else []
    checks += [pa.Check.le(high)] if high is not None else []
    return pa.Column(pl.Float64, checks, nullable=True)


def place() -> pa.Column:
    """A place on an axis: always a number."""
    return pa.Column(pl.Float64)


def ordered(low: str, high: str) -> pa.Check:
    """`low <= high` in every row that has both."""

    def holds(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(low) <= pl.col(high)).fill_null(True))

    return pa.Check(holds, error=f"{low} <= {high}")


def _all_json(data: pa.PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key).map_elements(_is_json, return_dtype=pl.Boolean))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def table(key: list[str], *checks: pa.Check, **columns: pa.Column) -> pa.DataFrameSchema:
    """A table of exactly these columns, one row per key; nothing is converted while it is checked."""
    return pa.DataFrameSchema(columns, checks=list(checks), unique=key, strict=True, coerce=False)
