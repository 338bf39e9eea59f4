"""Circuits of one model compared: a stage for each search, beside all others of the same kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from storage.content import ContentStore
from storage.home import Home
from tasks.models import loaded
from tasks.prepare import promptset_folder
from tasks.stage import Value, object_of, stage

Row = dict[str, Any]
MODULE = "mneme.circuit_comparison"


@stage("overlap")
def overlap(
    home: Home, own: dict[str, Any], others: Sequence[dict[str, Any]], model: Value, how: dict[str, str], seed: int
) -> Value:
    """What one search's circuit shares with those of others, and what those do on its prompts.

    own, others: `items` and `promptset` of each search, its `search` and `ablation`; `is_same_model` of the others says
    whether they were found on the very same weights, so that circuits can be exchanged. Rows are in their order.
    """
    from mneme.circuit_comparison import crossed_rows, overlap_rows
    from storage.promptset_files import read_promptset

    searched = _searched(home, own)
    theirs = [_searched(home, each) for each in others]
    exchanged = [each for each, about in zip(theirs, others, strict=True) if about["is_same_model"]]
    crossed: list[Row] = []
    forwards = 0
    if exchanged and searched.circuit is not None:
        lm = loaded(home, model, how["dtype"], how["device"])
        before = lm.forwards
        prompts = read_promptset(promptset_folder(home, own["promptset"]))
        crossed = crossed_rows(lm, prompts, searched, exchanged, own["ablation"], seed)
        forwards = lm.forwards - before
    waiting = iter(crossed)
    rows = []
    for other, about in zip(theirs, others, strict=True):
        more = next(waiting, {}) if about["is_same_model"] else {}
        rows.append([_plain(each | _exchange(each, more)) for each in overlap_rows(searched, other, seed)])
    return {"rows": rows, "forwards": forwards}


def _searched(home: Home, about: dict[str, Any]) -> Any:
    from mneme.circuit_comparison import Searched
    from mneme.circuit_findings import CircuitFindings
    from storage.arrays import read_arrays
    from storage.promptset_files import read_promptset

    arrays = read_arrays(ContentStore(home.store).file(object_of(about["items"])))
    clusters = read_promptset(promptset_folder(home, about["promptset"])).clusters
    return Searched(CircuitFindings.of_arrays(arrays), about["search"], None if clusters is None else clusters.numpy())


def _exchange(row: Row, crossed: Row) -> Row:
    """What exchanged circuits do: said once for a pair, with the circuits that were exchanged and their edges."""
    return crossed if (row["selection"], row["level"]) == ("faithful", "edge") else {}


def _plain(row: Row) -> Row:
    return {name: None if isinstance(each, float) and math.isnan(each) else each for name, each in row.items()}
