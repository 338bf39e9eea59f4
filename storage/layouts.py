"""The layouts of the lake's tables: which columns came later, so that files of an earlier version are read as meant.

A lake file names the layout it was written in. A column that came later is missing there, and its rows hold NULL: it
was not measured then. Any other missing or unknown column means that no version of Mneme wrote the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# layout 5 brought tables and no column: curves, curve_items, item_conditions; layout 6 circuits, circuit_edges,
# circuit_measures, circuit_overlap
# per table, each later column and the first layout whose files all have it; every such column may be NULL
ADDED: Mapping[str, Mapping[str, int]] = {
    "trials": {"step": 3, "baseline": 3},
    "answers": {"previous_delivery_id": 4},
    "head_scores": {"n_clusters": 2},
    "head_effects": {"n_clusters": 2, "normalised_effect": 2, "normalised_low": 2, "normalised_high": 2},
    "behavior": {"n_clusters": 2},
    "controls": {"n_clusters": 2},
}


def fits(table: str, layout: int, found: Iterable[str], columns: Iterable[str]) -> bool:
    """Whether a file of `table`, written in `layout` with the columns `found`, is one that Mneme wrote.

    `columns` are the table's columns now. Those that came after the file's layout may be missing, no other.
    """
    later = {column for column, since in ADDED.get(table, {}).items() if layout < since}
    return set(columns) - later <= set(found) <= set(columns)
