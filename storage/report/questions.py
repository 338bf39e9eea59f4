"""The questions of the page: the SQL that is run is the SQL that is shown."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import duckdb

Row = dict[str, Any]

_IN_STUDY = "trial_id in (select trial_id from mart.study_trials where study = {study})"
_ORDER = "probe, variant, model, model_seed, is_control, promptset, promptset_seed"
FROM_ELSEWHERE = ("behaviors", "roles", "training")  # what other studies may change
_QUESTIONS = {
    "claims": """
select claim, description, expected, margin, level, found, control, difference, ci_low, ci_high, n, unit,
    verdict, reason, found_sql, control_sql, comparison_id
from mart.comparisons
where study = {study}
order by claim""",
    "phase_changes": """
select model, model_seed, promptset, promptset_seed, probe, variant, measure, t50, t50_low, t50_high, width, rise,
    bic_gain, n_steps, verdict, comparison_id
from mart.phase_changes
where study = {study}
order by measure, variant, promptset, promptset_seed, model, model_seed""",
    "dynamics": """
select measure, probe, variant, promptset, promptset_seed, model, model_seed, step, value, ci_low, ci_high, unit
from mart.dynamics as d
where {in_study} or (variant = 'training' and exists (
    select 1 from mart.phase_changes as p
    where p.study = {study} and p.variant = 'training' and p.measure = d.measure
        and p.model = d.model and p.model_seed is not distinct from d.model_seed))
order by measure, probe, variant, promptset, model, model_seed, promptset_seed, step""",
    "behaviors": """
select promptset, promptset_seed, model, model_seed, accuracy, ci_low, ci_high, chance, n_items, is_descriptive,
    is_learnt, best_baseline, untrained, bigram, copy_first, copy_last, copy_most_frequent, readout, unit, trial_id
from mart.behavior_table
where {in_study}
order by promptset, promptset_seed, model, model_seed""",
    "training": """
select measure, probe, variant, promptset, promptset_seed, model, model_seed, step, value, ci_low, ci_high, unit
from mart.dynamics as d
where variant = 'training' and unit not like '%/s'
    and exists (
        select 1 from mart.trials as t
        where {in_study}
            and t.model = d.model and t.model_seed is not distinct from d.model_seed)
    and not exists (
        select 1 from mart.phase_changes as p
        where p.study = {study} and p.variant = 'training' and p.measure = d.measure
            and p.model = d.model and p.model_seed is not distinct from d.model_seed)
order by measure != 'loss', measure, model, model_seed, step""",
    "roles": """
select role, probe, variant, promptset, promptset_seed, model, model_seed, n_heads, n_measured, threshold,
    is_descriptive, trial_id
from mart.role_counts
where {in_study}
order by role, probe, promptset, promptset_seed, model, model_seed""",
    "trials": """
select model, model_seed, step, promptset, promptset_seed, probe, variant, status, error, seconds, forwards,
    device, dtype, code, versions, mlflow_run_id, delivered_at, delivery_id, trial_id, level, low, high, is_control,
    baseline
from mart.trials
where {in_study}
order by status = 'delivered', {order}, step""",
    "ranking": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    rank, layer, head, score, ci_low, ci_high, n_items, is_descriptive, unit, trial_id
from mart.head_ranking
where rank <= 10 and {in_study}
order by {order}, rank""",
    "scores": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    layer, head, score, n_items, is_descriptive, unit, trial_id
from mart.head_ranking
where {in_study}
order by {order}, layer, head""",
    "effects": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    intervention, position_label, layer, head, effect, is_descriptive, unit, trial_id
from mart.head_effects
where {in_study}
order by {order}, intervention, position_label, layer, head""",
    "curves": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    measure, x_name, x, value, ci_low, ci_high, n_items, is_descriptive, unit, trial_id
from mart.curves
where {in_study}
order by {order}, measure, x_name, x""",
    "grids": """
with
conditions as (
    select trial_id, item, condition, value
    from mart.item_conditions
    where {in_study}
    qualify count(distinct value) over (partition by trial_id, condition) between 3 and 64
),
pairs as (
    select a.trial_id, a.item, a.condition as x_name, a.value as x, b.condition as y_name, b.value as y
    from conditions as a
    inner join conditions as b on a.trial_id = b.trial_id and a.item = b.item and a.condition > b.condition
),
best as (select trial_id, layer, head from mart.head_ranking where rank = 1)
select s.probe, s.variant, s.model, s.model_seed, s.promptset, s.promptset_seed, t.is_control,
    p.x_name, p.x, p.y_name, p.y, avg(s.value) as value, count(s.value) as n_items,
    count(s.value) < 30 as is_descriptive, s.unit, t.low, t.high, s.trial_id
from mart.item_scores as s
inner join mart.trials as t on s.trial_id = t.trial_id
inner join pairs as p on s.trial_id = p.trial_id and s.item = p.item
left join best as b on s.trial_id = b.trial_id and s.layer = b.layer and s.head = b.head
where s.value is not null and (s.layer is null or b.head is not null)
group by all
order by all""",
    "controls": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control, k, value, ci_low, ci_high,
    control_mean, control_low, control_high, n_draws, n_distinct, p_value, n_items, is_descriptive, unit, trial_id
from mart.controls
where {in_study}
order by {order}, k""",
    "circuits": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control, method, search, ablation,
    n_edges_requested, n_edges, n_graph_edges, is_selected, faithfulness, ci_low, ci_high, completeness, incompleteness,
    minimality, control_mean, control_low, control_high, n_draws, p_value, n_items, is_descriptive, unit, trial_id
from mart.circuits
where {in_study}
order by {order}, ablation, n_edges_requested""",
    "circuit_edges": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control, source, destination, score, unit,
    trial_id
from mart.circuit_edges
where is_selected and {in_study}
order by {order}, abs(score) desc""",
    "overlaps": """
select probe, variant, model, model_seed, promptset, promptset_seed, other_promptset, other_promptset_seed, selection,
    n_a, n_b, n_shared, jaccard, p_value, ceiling, control, own_faithfulness, cross_faithfulness, unit, trial_id
from mart.circuit_overlap
where study = {study} and level = 'edge' and step is null and other_step is null and {in_study}
order by probe, variant, model, model_seed, promptset, other_promptset, selection""",
    "checkpoints": """
select probe, variant, model, model_seed, promptset, promptset_seed, step, other_step, selection, n_a, n_b, n_shared,
    jaccard, p_value, ceiling, control, unit, trial_id
from mart.circuit_overlap
where study = {study} and level = 'edge' and step is not null and step <> other_step and {in_study}
order by probe, variant, model, model_seed, promptset, step, other_step, selection""",
    "behavior": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    readout, value, ci_low, ci_high, chance, n_items, is_descriptive, unit, trial_id
from mart.behavior
where {in_study}
order by readout, {order}""",
    "reliability": """
select probe, variant, model, model_seed, promptset, promptset_seed, is_control,
    split_half, spearman_brown, top_k, top_k_jaccard, n_items, is_descriptive, trial_id
from mart.reliability
where {in_study}
order by {order}""",
}


@dataclass(frozen=True)
class Answer:
    """A question of the page: its SQL and its rows, by column name."""

    sql: str
    rows: list[Row]


def ask_all(
    connection: duckdb.DuckDBPyConnection,
    study: str,
    trial_ids: Collection[str] | None = None,
    names: Collection[str] = tuple(_QUESTIONS),
) -> dict[str, Answer]:
    """The named questions about one study, or about some of its trials, answered."""
    named = _quoted(study)
    in_study = _IN_STUDY.format(study=named)
    if trial_ids is not None:
        in_study += f"\n    and trial_id in ({', '.join(map(_quoted, sorted(trial_ids))) or 'null'})"
    questions = {
        name: sql.strip().format(in_study=in_study, study=named, order=_ORDER)
        for name, sql in _QUESTIONS.items()
        if name in names
    }
    return {name: _ask(connection, sql) for name, sql in questions.items()}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    found = connection.execute(sql)
    names = [name for name, *_ in found.description or []]
    return Answer(sql, [dict(zip(names, row, strict=True)) for row in found.fetchall()])
