"""Promptsets on disk: Parquet for the prompts, JSON for their facts, and the user's own CSV or JSONL."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.promptset import Promptset
from storage.config_text import refuse_odd_values
from storage.content import PROMPTS
from storage.identity import canonical_json

FACTS = "facts.json"
_LABEL = "label_"
_CONDITION = "condition_"


def write_promptset(promptset: Promptset, folder: Path) -> None:
    """Write `prompts.parquet` (one row per item; token lists, answers, labels, conditions) and `facts.json`."""
    lengths = promptset.clean.lengths.tolist()
    columns: dict[str, Any] = {"item": list(range(len(promptset))), "clean_ids": _rows(promptset.clean.ids, lengths)}
    if promptset.corrupt is not None:
        columns["corrupt_ids"] = _rows(promptset.corrupt.ids, lengths)
    for name, answers in (("correct_ids", promptset.correct_ids), ("wrong_ids", promptset.wrong_ids)):
        if answers is not None:
            columns[name] = answers.tolist()
    if promptset.clusters is not None:
        columns["cluster"] = promptset.clusters.tolist()
    if promptset.texts is not None:
        columns["text"] = list(promptset.texts)
    for name, positions in promptset.clean.labels.items():
        columns[_LABEL + name] = positions.tolist()
    for name, condition in promptset.conditions.items():
        columns[_CONDITION + name] = condition.tolist()
    pl.DataFrame(columns).write_parquet(folder / PROMPTS, compression="zstd")
    facts = {"facts": dict(promptset.facts), "dropped": dict(promptset.dropped)}
    (folder / FACTS).write_text(canonical_json(facts), encoding="utf-8")


def read_promptset(folder: Path) -> Promptset:
    """The promptset that `write_promptset` wrote."""
    frame = pl.read_parquet(folder / PROMPTS)
    stored = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    labels = {
        name.removeprefix(_LABEL): torch.tensor(frame[name].to_list(), dtype=torch.int64)
        for name in frame.columns
        if name.startswith(_LABEL)
    }

    def column(name: str) -> Tensor | None:
        return torch.tensor(frame[name].to_list(), dtype=torch.int64) if name in frame.columns else None

    return Promptset(
        clean=_batch(frame["clean_ids"].to_list(), labels),
        corrupt=_batch(frame["corrupt_ids"].to_list(), {}) if "corrupt_ids" in frame.columns else None,
        correct_ids=column("correct_ids"),
        wrong_ids=column("wrong_ids"),
        clusters=column("cluster"),
        facts=stored["facts"],
        texts=tuple(frame["text"].to_list()) if "text" in frame.columns else None,
        dropped=stored["dropped"],
        conditions={
            name.removeprefix(_CONDITION): torch.tensor(frame[name].to_list(), dtype=torch.float64)
            for name in frame.columns
            if name.startswith(_CONDITION)
        },
    )


def promptset_hash(promptset: Promptset) -> str:
    """sha256 of what a model and a probe see, whatever the file format: tokens, answers, labels, conditions, facts."""
    content = hashlib.sha256()
    batches = {"clean": promptset.clean} | ({"corrupt": promptset.corrupt} if promptset.corrupt is not None else {})
    tensors: dict[str, Tensor | None] = {"correct": promptset.correct_ids, "wrong": promptset.wrong_ids}
    tensors["clusters"] = promptset.clusters
    for name, batch in batches.items():
        tensors |= {f"{name}.ids": batch.ids * batch.padding, f"{name}.lengths": batch.lengths}
        tensors |= {f"{name}.label.{label}": positions for label, positions in batch.labels.items()}
    for name, tensor in sorted(tensors.items()):
        if tensor is not None:
            content.update(f"{name}{tuple(tensor.shape)}".encode())
            content.update(tensor.to(torch.int64).contiguous().numpy().tobytes())
    for name, condition in sorted(promptset.conditions.items()):
        content.update(f"condition.{name}".encode() + condition.contiguous().numpy().tobytes())
    content.update(canonical_json(dict(promptset.facts)).encode())
    return content.hexdigest()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The user's own rows from a CSV (with a header) or JSONL file; raises BadInput that names the line."""
    if path.suffix.lower() not in {".csv", ".jsonl"}:
        raise BadInput(f"{str(path)[:200]} is neither .csv nor .jsonl: prompts come as one of the two")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text() would turn each CR inside a text into LF
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path)[:200]} cannot be read: {str(error)[:200]}") from error
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _jsonl_rows(text, path)
    if not rows:
        raise BadInput(f"{path} holds no prompts: give at least one row under the header")
    return rows


def _csv_rows(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        # io.StringIO breaks lines where CSV does; splitlines() would break them at U+2028 and others too
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadInput(f"{path} is not valid CSV: {error}") from error
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    _refuse_repeated(header, f"{path}: the header")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise BadInput(
                f"{path} line {number} has another number of columns than the header: quote texts with commas"
            )
    return [{key: value for key, value in row.items() if value != ""} for row in rows]


def _jsonl_rows(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            row = json.loads(line, object_pairs_hook=partial(_object, place))
        except BadInput:
            raise
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place} is not valid JSON: {str(error)[:200]}") from error
        if not isinstance(row, dict):
            raise BadInput(f"{place} is not an object with a prompt, or clean and corrupt")
        refuse_odd_values(row, place)
        rows.append(row)
    return rows


def _object(place: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([name for name, _ in pairs], place)
    return dict(pairs)


def _refuse_repeated(names: list[str], place: str) -> None:
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise BadInput(f"{place} names '{repeated[0][:80]}' twice: keep one of them")


def _rows(ids: Tensor, lengths: list[int]) -> list[list[int]]:
    return [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]


def _batch(rows: list[list[int]], labels: dict[str, Tensor]) -> Batch:
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.int64)
    for item, row in enumerate(rows):
        ids[item, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return Batch(ids, lengths, labels)
