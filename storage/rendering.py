"""Answers as text (aligned table, CSV, JSON) and as files (Parquet too)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from storage.files import replacing

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "csv", "json", "parquet")
_SHOWN_ROWS = 200
_ROWS_AT_ONCE = 10_000
_WIDEST = 60
# all but tab and line feed; and the characters that break lines or turn the direction of writing
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_PLAN = ["explain_key", "explain_value"]


def rendered(answer: duckdb.DuckDBPyConnection, format: str) -> str:
    """The answer as text; a table shows its first 200 rows and says so."""
    buffer = io.StringIO()
    if format == "table":
        _write_table(answer, buffer, _SHOWN_ROWS)
    else:
        _WRITERS[format](answer, buffer)
    return buffer.getvalue()


def written(answer: duckdb.DuckDBPyConnection, format: str, output: Path) -> int:
    """Write all rows to a text file that appears whole or not at all; returns how many."""
    with replacing(output.absolute()) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        return _WRITERS[format](answer, stream)


def written_parquet(answer: duckdb.DuckDBPyRelation, output: Path) -> int:
    """Write all rows to a Parquet file that appears whole or not at all; returns how many."""
    # half a second to import, and needed for this format only
    from pyarrow import parquet  # noqa: PLC0415

    reader = answer.to_arrow_reader(_ROWS_AT_ONCE)
    names = _unique(list(reader.schema.names))
    schema = reader.schema.empty_table().rename_columns(names).schema
    n_rows = 0
    with replacing(output.absolute()) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for batch in reader:
            writer.write_batch(batch.rename_columns(names))
            n_rows += batch.num_rows
    return n_rows


def _write_table(answer: duckdb.DuckDBPyConnection, stream: TextIO, limit: int | None = None) -> int:
    """Aligned columns and a line that counts the rows: numbers to the right, four digits, NULL as NULL."""
    names = _names(answer)
    if names == _PLAN:  # boxes drawn in characters
        stream.writelines(f"{text}\n" for _, text in answer.fetchall())
        return 0
    rows = answer.fetchall() if limit is None else answer.fetchmany(limit + 1)
    is_cut = limit is not None and len(rows) > limit
    rows = rows[:limit]
    cells = [[_cell(value) for value in row] for row in rows]
    names = [visible(" ".join(name.split())) for name in names]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    rights = [any(_is_number(value) for value in column) for column in zip(*rows, strict=True)] or [False] * len(names)
    for texts in (names, ["-" * width for width in widths], *cells):
        pairs = zip(texts, widths, rights, strict=True)
        line = "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in pairs)
        stream.write(line.rstrip() + "\n")
    many = f"the first {limit} rows; -o FILE gets all" if is_cut else f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    stream.write(f"({many})\n")
    return len(rows)


def _write_csv(answer: duckdb.DuckDBPyConnection, stream: TextIO) -> int:
    """A header, then a line per row; NULL is empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_names(answer))
    n_rows = 0
    for row in _rows(answer):
        writer.writerow(["" if value is None else _text(value) for value in row])
        n_rows += 1
    return n_rows


def _write_json(answer: duckdb.DuckDBPyConnection, stream: TextIO) -> int:
    """An array with one object per row; NULL, NaN and infinite are null."""
    names = _names(answer)
    n_rows = 0
    for row in _rows(answer):
        record = dict(zip(names, map(_plain, row), strict=True))
        stream.write(("[\n" if n_rows == 0 else ",\n") + json.dumps(record, ensure_ascii=False, allow_nan=False))
        n_rows += 1
    stream.write("\n]\n" if n_rows else "[]\n")
    return n_rows


_WRITERS: dict[str, Callable[[duckdb.DuckDBPyConnection, TextIO], int]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}


def visible(text: str) -> str:
    """The text with its control characters written out (\\x1b, \\u202e): nobody else's text may steer a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def quoted(name: str, longest: int = 80) -> str:
    """A name as a sentence shows it, whoever wrote it: in quotes, cut, its line breaks and tabs written out."""
    return "'" + visible(name[:longest]).replace("\n", "\\n").replace("\t", "\\t") + "'"


def _names(answer: duckdb.DuckDBPyConnection) -> list[str]:
    return _unique([str(name) for name, *_ in answer.description or []])


def _unique(names: list[str]) -> list[str]:
    """Column names, a repeated one with a number behind it."""
    unique: list[str] = []
    for name in names:
        taken = (f"{name}_{number}" for number in count(2))
        unique.append(next(each for each in taken if each not in names + unique) if name in unique else name)
    return unique


def _rows(answer: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := answer.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    """A value on the screen: floats to four significant digits, one line, at most 60 characters."""
    if value is None:
        return "NULL"
    if isinstance(value, float | Decimal):
        number = float(value)
        return f"{number:.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:.4g}"
    text = visible(" ".join(_text(value).split()))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _text(value: Any) -> str:
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    return repr(value) if isinstance(value, float) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
