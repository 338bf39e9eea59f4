"""What the published results say against a run: numbers that moved since the run before, and promises that broke."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from storage.home import Home
from storage.rows import rows

_MOVED = """
    select *
    from mart.drift
    where study = ? and is_moved and answered_at > ? and answered_at <= ?
    order by gap desc nulls first, trial_id, measure, layer, head, position_label, k
"""
_BROKEN = "select value from raw.meta where name = 'broken_promises'"


def moved_between(home: Home, study: str, since: str, until: str) -> list[dict[str, Any]]:
    """Rows of `mart.drift` that moved, for answers that the study took after `since` and up to `until` (ISO, UTC).

    The widest gap comes first.
    """
    return rows(home, _MOVED, [study, _plain(since), _plain(until)])


def broken_promises_now(home: Home) -> list[str]:
    """One sentence for each promise that the published results break; none where nothing is published."""
    found = rows(home, _BROKEN)
    return list(json.loads(found[0]["value"])["sentences"]) if found else []


def _plain(moment: str) -> datetime:
    """A moment as the warehouse holds it: UTC, without a zone."""
    return datetime.fromisoformat(moment).astimezone(UTC).replace(tzinfo=None)
