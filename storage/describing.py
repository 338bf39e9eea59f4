"""What can be asked, as text: the mart views with their grain, columns and units, read from the packaged yaml."""

from __future__ import annotations

import textwrap

from mneme.errors import BadInput
from mneme.registry import near_names
from storage.rendering import quoted
from storage.views import View, list_views

_WIDTH = 110


def describe_all(row_counts: dict[str, int]) -> str:
    """Each mart view: grain, rows when results exist, and what it says."""
    views = sorted((view for view in list_views() if view.db_schema == "mart"), key=lambda view: view.name)
    lines = []
    for view in views:
        count = f", {row_counts[view.name]:,} now" if view.name in row_counts else ""
        lines.append(f"{view.full_name}  ({view.grain}{count})")
        lines.extend(textwrap.wrap(view.description, _WIDTH, initial_indent="    ", subsequent_indent="    "))
    lines.append("")
    lines.append("mneme views NAME shows the columns of one view with their units.")
    return "\n".join(lines) + "\n"


def describe_one(name: str) -> str:
    """One view: what it says, its grain, its columns in order, and what it promises; raises BadInput."""
    view = _find(name)
    width = max(len(column.name) for column in view.columns)
    lines = [view.full_name, "", *textwrap.wrap(view.description, _WIDTH), f"Grain: {view.grain}.", ""]
    for column in view.columns:
        text = column.text if column.unit is None else f"{column.text} [{column.unit}]"
        indent = " " * (width + 4)
        lines.extend(
            textwrap.wrap(text, _WIDTH, initial_indent=f"  {column.name:<{width}}  ", subsequent_indent=indent)
        )
    return "\n".join(lines) + "\n"


def _find(name: str) -> View:
    views = {view.full_name: view for view in list_views()}
    found = views.get(name) or views.get(f"mart.{name}")
    if found is None:
        marts = [each for each in views if each.startswith("mart.")]
        raise BadInput(
            f"there is no view {quoted(name)}" + near_names(f"mart.{name.removeprefix('mart.')}"[:80], marts)
        )
    return found
