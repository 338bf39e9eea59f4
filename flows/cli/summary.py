"""What `mneme run` ends with: the study's main numbers, what was computed, and where to look next."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from flows.cli.console import console, table
from storage.home import Home
from storage.rows import rows

_HEADS = """
    select *
    from mart.head_ranking
    where list_contains(?, trial_id) and rank <= 3 and score is not null
    order by model, model_seed, promptset, promptset_seed, probe, variant, rank
"""
_EFFECTS = """
    select *
    from mart.controls
    where list_contains(?, trial_id) and not is_control
    order by model, model_seed, promptset, promptset_seed, probe, variant, k
"""
_BEHAVIOR = """
    select *
    from mart.behavior
    where list_contains(?, trial_id)
    order by model, model_seed, promptset, promptset_seed, readout
"""
_CURVES = """
    select *
    from mart.curves
    where list_contains(?, trial_id) and trial_id in (select trial_id from mart.trials where level = 'curve')
    order by model, model_seed, promptset, promptset_seed, probe, variant, measure, x
"""
_CIRCUITS = """
    select *
    from mart.circuits
    where list_contains(?, trial_id) and is_selected
    order by model, model_seed, promptset, promptset_seed, probe, variant, ablation
"""
_CLAIMS = "select * from mart.comparisons where study = ? order by claim"
_LEARNT = """
    select *
    from mart.behavior_table
    where list_contains(?, trial_id) and best_baseline is not null
    order by promptset, promptset_seed, model, model_seed
"""
Key = TypeVar("Key")
_MOST_TABLES = 6
_MARKS = {True: "learnt", False: "not", None: "unknown"}
_NEXT = {
    "claims": "select * from mart.comparisons where study = '{study}'",
    "circuits": "select * from mart.circuits where is_selected",
    "heads": "select * from mart.head_ranking where probe = '{probe}' order by rank limit 5",
    "behavior": "select * from mart.behavior",
}


def print_summary(home: Home, outcome: dict[str, Any], seconds: float) -> None:
    """Print the tables of a study that has just been run."""
    out = console()
    asked = [outcome["trial_ids"]]
    heads = rows(home, _HEADS, asked)
    _print(out, "top heads, mean over prompts [95% interval]", heads, _heads)
    learnt = rows(home, _LEARNT, asked)
    behavior = [each for each in rows(home, _BEHAVIOR, asked) if each["promptset"] not in _promptsets(learnt)]
    title = "harm of removing the top k heads, beside as many random heads of the same layers"
    _print(out, title, rows(home, _EFFECTS, asked), _effects)
    _print(out, "behavior, mean over prompts [95% interval]", behavior, _behavior)
    title = "curves, mean over prompts [95% interval] at the first and the last point"
    _print(out, title, rows(home, _CURVES, asked), _curves)
    title = "smallest circuit that keeps enough, on prompts that did not find it [95% interval]"
    circuits = rows(home, _CIRCUITS, asked)
    _print(out, title, circuits, _circuits)
    if learnt:
        out.print("\nlearnt behaviors: accuracy beside chance and the best baseline; one entry a seed", style="bold")
        out.print(_learnt(learnt))
    claims = rows(home, _CLAIMS, [outcome["study"]])
    if claims:
        out.print(f"\nclaims of {outcome['study']}: difference of found and control [interval]", style="bold")
        out.print(_claims(claims))
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in outcome["trials"].items())
    out.print(
        f"\n{counts}; computed now: {outcome['computed_trials']} trials, {outcome['forwards']} forward passes; "
        f"{seconds:.1f} s"
    )
    out.print(f"report   {outcome['report']}", soft_wrap=True)
    out.print(f'next     {_command()} sql "{_next(outcome["study"], claims, circuits, heads)}"', soft_wrap=True)
    out.print(f"files    {_mlflow(home)}", soft_wrap=True)


def _next(study: str, claims: Sequence[Any], circuits: Sequence[Any], heads: Sequence[dict[str, Any]]) -> str:
    """What to ask next, of what the study has found."""
    if claims:
        return _NEXT["claims"].format(study=study)
    if circuits:
        return _NEXT["circuits"]
    if not heads:
        return _NEXT["behavior"]
    probes = [each["probe"] for each in heads]
    return _NEXT["heads"].format(probe="induction" if "induction" in probes else probes[0])


def _heads(found: list[dict[str, Any]]) -> Table:
    shown = table("probe", "1st", "2nd", "3rd", "n", "unit")
    for probe, heads in _grouped(found, _probe).items():
        cells = [f"L{each['layer']}H{each['head']} {_value(each, 'score')}" for each in heads]
        shown.add_row(probe, *cells, *[""] * (3 - len(cells)), _count(heads[0]["n_items"]), heads[0]["unit"])
    return shown


def _effects(found: list[dict[str, Any]]) -> Table:
    shown = table("probe", "k", "top k", "random k", "sets", "p", "n", "unit")
    for each in found:
        random = _number(each["control_mean"]) + _interval(each["control_low"], each["control_high"])
        numbers = [_number(each["n_draws"]), _number(each["p_value"]), str(each["n_items"])]
        shown.add_row(_probe(each), str(each["k"]), _value(each, "value"), random, *numbers, each["unit"])
    return shown


def _behavior(found: list[dict[str, Any]]) -> Table:
    shown = table("readout", "value", "chance", "n", "unit")
    for each in found:
        numbers = [_value(each, "value"), _number(each["chance"]), str(each["n_items"])]
        shown.add_row(each["readout"], *numbers, each["unit"])
    return shown


def _curves(found: list[dict[str, Any]]) -> Table:
    shown = table("probe", "curve", "axis", "points", "first", "last", "n", "unit")
    for (probe, measure), points in _grouped(found, lambda row: (_probe(row), str(row["measure"]))).items():
        first, last = points[0], points[-1]
        ends = [f"{_number(each['x'])}: {_value(each, 'value')}" for each in (first, last)]
        shown.add_row(probe, measure, first["x_name"], str(len(points)), *ends, str(first["n_items"]), first["unit"])
    return shown


def _circuits(found: list[dict[str, Any]]) -> Table:
    shown = table("probe", "other edges", "edges", "of", "faithfulness", "random circuits", "without it", "n")
    for each in found:
        sizes = [str(each["n_edges"]), str(each["n_graph_edges"])]
        shares = [_value(each, "faithfulness"), _number(each["control_mean"]), _number(each["completeness"])]
        shown.add_row(_probe(each), each["ablation"], *sizes, *shares, str(each["n_items"]))
    return shown


def _learnt(found: list[dict[str, Any]]) -> Table:
    """Rows are behaviors, columns models: accuracy and verdict of each seed; chance and the best baseline of all."""
    models = list(dict.fromkeys(each["model"] for each in found))
    shown = table("behavior", *models, "chance", "baseline", "n")
    for behavior, of_behavior in _grouped(found, lambda row: str(row["promptset"])).items():
        of_models = _grouped(of_behavior, lambda row: str(row["model"]))
        cells = [", ".join(map(_verdict, of_models.get(model, []))) for model in models]
        beside = [_number(_largest(of_behavior, name)) for name in ("chance", "best_baseline")]
        shown.add_row(behavior, *cells, *beside, str(min(each["n_items"] for each in of_behavior)))
    return shown


def _verdict(row: dict[str, Any]) -> str:
    return f"{_number(row['accuracy'])} {_MARKS[row['is_learnt']]}"


def _promptsets(found: list[dict[str, Any]]) -> set[str]:
    return {each["promptset"] for each in found}


def _largest(found: list[dict[str, Any]], name: str) -> float | None:
    return max((each[name] for each in found if each[name] is not None), default=None)


def _claims(found: list[dict[str, Any]]) -> Table:
    shown = table("claim", "verdict", "difference", "n", "unit", "why")
    for each in found:
        numbers = [_value(each, "difference"), str(each["n"])]
        shown.add_row(each["claim"], each["verdict"], *numbers, each["unit"], each["reason"] or "")
    return shown


def _print(
    out: Console, title: str, found: list[dict[str, Any]], tabulate: Callable[[list[dict[str, Any]]], Table]
) -> None:
    """Print one table per model and promptset; the first few, when there are many."""
    groups = _grouped(found, _pairing)
    for pairing in [*groups][:_MOST_TABLES]:
        out.print(f"\n{pairing}: {title}", style="bold")
        out.print(tabulate(groups[pairing]))
    if len(groups) > _MOST_TABLES:
        out.print(f"... and {len(groups) - _MOST_TABLES} more models and promptsets: ask in SQL, or see the report")


def _grouped(found: list[dict[str, Any]], name: Callable[[dict[str, Any]], Key]) -> dict[Key, list[dict[str, Any]]]:
    groups: dict[Key, list[dict[str, Any]]] = {}
    for each in found:
        groups.setdefault(name(each), []).append(each)
    return groups


def _pairing(row: dict[str, Any]) -> str:
    seed = "" if row["model_seed"] is None else f"[{row['model_seed']}]"
    return f"{row['model']}{seed} on {row['promptset']}[{row['promptset_seed']}]"


def _probe(row: dict[str, Any]) -> str:
    return str(row["probe"]) + ("" if row["variant"] == "primary" else f"[{row['variant']}]")


def _value(row: dict[str, Any], name: str) -> str:
    return _number(row[name]) + _interval(row.get("ci_low"), row.get("ci_high"))


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"


def _count(value: int | None) -> str:
    return "NULL" if value is None else str(value)


def _number(value: float | None) -> str:
    return "NULL" if value is None else f"{value:.3g}"


def _command() -> str:
    """How this very command can be called from here."""
    return "mneme" if shutil.which("mneme") else sys.argv[0]


def _mlflow(home: Home) -> str:
    from storage.mlflow_log import ui_command

    command = ui_command(home)
    return command if shutil.which("mlflow") else f"{Path(sys.argv[0]).parent}/{command}"
