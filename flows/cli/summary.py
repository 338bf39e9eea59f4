"""What `mneme run` ends with: the study's main numbers, what was computed, and where to look next."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.console import console, table
from storage.home import Home
from storage.rows import rows

_HEADS = """
    select r.*, t.unit as probe_unit
    from mart.head_ranking as r
    inner join mart.trials as t on r.trial_id = t.trial_id
    where list_contains(t.studies, ?) and r.rank <= 3 and r.score is not null
    order by r.model, r.model_seed, r.promptset, r.promptset_seed, r.probe, r.variant, r.rank
"""
_EFFECTS = """
    select c.*
    from mart.controls as c
    inner join mart.trials as t on c.trial_id = t.trial_id
    where list_contains(t.studies, ?) and not t.is_control
    order by c.model, c.model_seed, c.promptset, c.promptset_seed, c.probe, c.variant, c.k
"""
_BEHAVIOR = """
    select b.*
    from mart.behavior as b
    inner join mart.trials as t on b.trial_id = t.trial_id
    where list_contains(t.studies, ?)
    order by b.model, b.model_seed, b.promptset, b.promptset_seed, b.readout
"""
NEXT = "select * from mart.head_ranking where probe = 'induction' order by rank limit 5"


def print_summary(home: Home, outcome: dict[str, Any], seconds: float) -> None:
    """Print the tables of a study that has just been run."""
    out = console()
    study = outcome["study"]
    _print(out, "top heads per probe, mean over prompts [95% interval]", _heads(rows(home, _HEADS, [study])))
    _print(
        out,
        "without the top k heads, against as many random heads per layer",
        _effects(rows(home, _EFFECTS, [study])),
    )
    _print(out, "behavior, mean over prompts [95% interval]", _behavior(rows(home, _BEHAVIOR, [study])))
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in outcome["trials"].items())
    out.print(
        f"{counts}; computed now: {outcome['computed_trials']} trials, {outcome['forwards']} forward passes; "
        f"{seconds:.1f} s"
    )
    out.print(f"report   {outcome['report']}", soft_wrap=True)
    out.print(f'next     mneme sql "{NEXT}"', soft_wrap=True)
    out.print(f"files    {_mlflow(home)}", soft_wrap=True)


def _heads(found: list[dict[str, Any]]) -> Table:
    shown = table("model", "promptset", "probe", "1st", "2nd", "3rd", "n", "unit")
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in found:
        grouped.setdefault((_model(each), _promptset(each), _probe(each)), []).append(each)
    for names, heads in grouped.items():
        cells = [f"L{each['layer']}H{each['head']} {_value(each, 'score')}" for each in heads]
        shown.add_row(*names, *cells, *[""] * (3 - len(cells)), str(heads[0]["n_items"]), heads[0]["probe_unit"])
    return shown


def _effects(found: list[dict[str, Any]]) -> Table:
    shown = table("model", "promptset", "probe", "k", "top k", "random k", "sets", "p", "n", "unit")
    for each in found:
        shown.add_row(
            _model(each),
            _promptset(each),
            _probe(each),
            str(each["k"]),
            _value(each, "value"),
            _number(each["control_mean"]) + _interval(each["control_low"], each["control_high"]),
            _number(each["n_distinct"]),
            _number(each["p_value"]),
            str(each["n_items"]),
            each["unit"],
        )
    return shown


def _behavior(found: list[dict[str, Any]]) -> Table:
    shown = table("model", "promptset", "readout", "value", "chance", "n", "unit")
    for each in found:
        value, chance = _value(each, "value"), _number(each["chance"])
        shown.add_row(
            _model(each), _promptset(each), each["readout"], value, chance, str(each["n_items"]), each["unit"]
        )
    return shown


def _print(out: Console, title: str, shown: Table) -> None:
    if shown.row_count:
        out.print(f"\n{title}", style="bold")
        out.print(shown)


def _model(row: dict[str, Any]) -> str:
    return str(row["model"]) + ("" if row["model_seed"] is None else f"[{row['model_seed']}]")


def _promptset(row: dict[str, Any]) -> str:
    return f"{row['promptset']}[{row['promptset_seed']}]"


def _probe(row: dict[str, Any]) -> str:
    return str(row["probe"]) + ("" if row["variant"] == "primary" else f"[{row['variant']}]")


def _value(row: dict[str, Any], name: str) -> str:
    return _number(row[name]) + _interval(row.get("ci_low"), row.get("ci_high"))


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"


def _number(value: float | None) -> str:
    return "NULL" if value is None else f"{value:.3g}"


def _mlflow(home: Home) -> str:
    from storage.mlflow_log import ui_command

    return ui_command(home)
