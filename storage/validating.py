"""Rows checked against their raw table before anything is stored: the first fault in one sentence."""

from __future__ import annotations

import json

import polars as pl
from pandera.errors import SchemaErrors

from mneme.errors import BadInput
from storage.tables import TABLES, column_types

_SHOWN_VALUES = 3
_SHOWN_CHARACTERS = 100


def validated(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the declared columns, order and types; raises BadInput with one sentence at the first fault."""
    if table not in TABLES:
        raise BadInput(f"unknown table '{table}': the raw tables are {', '.join(TABLES)}")
    types = column_types(table)
    for problem, names in (("lacks", types.keys() - set(frame.columns)), ("has", set(frame.columns) - types.keys())):
        if names:
            kind = "column" if problem == "lacks" else "unknown column"
            raise BadInput(f"table {table} {problem} the {kind} {', '.join(sorted(names))}: see ARCHITECTURE.md")
    cast = pl.DataFrame([_cast(table, frame[name], dtype) for name, (dtype, _) in types.items()])
    try:
        return TABLES[table].validate(cast, lazy=True)
    except SchemaErrors as errors:
        raise BadInput(_sentence(table, errors.failure_cases)) from None


def _cast(table: str, column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The column in its declared type; a fraction is never cut to an integer."""
    place = f"table {table}, column '{column.name}'"
    if column.dtype.is_float():
        if column.is_infinite().any():
            raise BadInput(f"{place}: infinite values are not stored; find the overflow or deliver NaN for no value")
        column = column.fill_nan(None)
        if dtype.is_integer() and (column != column.floor()).any():
            raise BadInput(f"{place}: {column.filter(column != column.floor())[0]} is not a whole number")
    try:
        return column.cast(dtype)
    except pl.exceptions.PolarsError:
        shown = ", ".join(_short(value) for value in column.head(_SHOWN_VALUES))
        raise BadInput(f"{place}: {column.dtype} values ({shown}) do not fit the declared type {dtype}") from None


def _sentence(table: str, failures: pl.DataFrame) -> str:
    """One sentence about the first failing check, with its first failing values."""
    check, column = failures["check"][0], failures["column"][0]
    same = pl.col("check").eq_missing(pl.lit(check)) & pl.col("column").eq_missing(pl.lit(column))
    cases = failures.filter(same)["failure_case"]
    is_row = column not in column_types(table)
    shown = ", ".join(_short(_row_text(each) if is_row else each) for each in cases.head(_SHOWN_VALUES))
    more = f" and {len(cases) - _SHOWN_VALUES} more" if len(cases) > _SHOWN_VALUES else ""
    place = f"table {table}" if is_row else f"table {table}, column '{column}'"
    known = {"multiple_fields_uniqueness": "two rows share one key", "not_nullable": "NULL is not allowed here"}
    return f"{place}: {known.get(check, f'expected {check}, found')}: {shown}{more}"


def _row_text(row: str) -> str:
    """A row that pandera gives as JSON, without its long ids."""
    return "(" + " ".join(f"{name}={value}" for name, value in json.loads(row).items() if name[-3:] != "_id") + ")"


def _short(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
