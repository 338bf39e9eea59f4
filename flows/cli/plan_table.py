"""`mneme run --plan`: what would be computed, why, and what it costs."""

from __future__ import annotations

import itertools

from rich.table import Table

from flows.cli.console import console, table
from storage.home import Home
from storage.rows import rows
from storage.studies import Study
from tasks.plan import Planned, plan_pairing, read_before

_BEFORE = "select trial_id, identity, seconds, forwards, status from raw.trials order by delivered_at"


def print_plan(home: Home, asked: Study) -> None:
    """Print one line per trial and the sum; nothing is run."""
    before = read_before(rows(home, _BEFORE))
    planned = [
        each
        for _, trials in itertools.groupby(asked.trials, key=lambda trial: trial.pairing_label)
        for each in plan_pairing(home, list(trials), asked.spec.device, asked.spec.trace_limit_mib, before)
    ]
    out = console()
    out.print(_table(asked.name, planned))
    to_do = [each for each in planned if not each.is_cached]
    out.print(
        f"{len(planned) - len(to_do)} of {len(planned)} trials are answered; {len(to_do)} to do: "
        f"{_sum(to_do, 'forwards')} prompts through the model, about {_sum(to_do, 'seconds')} s, "
        f"{_sum(to_do, 'disk_mib')} MiB of disk, {_largest(to_do)} MiB of memory for weights and trace"
    )


def _table(name: str, planned: list[Planned]) -> Table:
    shown = table("trial", "id", "state", "why", "forwards", "s", "disk MiB", title=f"plan of {name}")
    for each in planned:
        state = "cached" if each.is_cached else "to do"
        costs = [_text(each.forwards), _text(each.seconds), _text(each.disk_mib)]
        shown.add_row(each.trial.label, each.trial.trial_id[:8], state, each.why, *costs)
    return shown


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _sum(planned: list[Planned], cost: str) -> str:
    known = [getattr(each, cost) for each in planned]
    total = sum(value for value in known if value is not None)
    return f"{total:.3g}" + (" and what is unknown yet" if None in known else "")


def _largest(planned: list[Planned]) -> str:
    return _text(max((each.memory_mib or 0.0 for each in planned), default=0.0))
