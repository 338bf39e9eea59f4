"""The study: every trial of a grid answered, recorded, published and reported."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from prefect import flow

from flows.answers import Answer, Answered, Asking
from flows.circuits import compare_circuits
from flows.comparisons import Compared, compare
from flows.environment import prepare_environment
from flows.runners import refuse_absent_runner
from flows.watching import Watch, watched
from flows.workers import answer_models
from storage.home import Home, writable_home
from storage.studies import Study, load_study
from storage.study_runs import utc_now
from storage.warehouse import refuse_later
from tasks.ledger import ledger
from tasks.publish import publish
from tasks.record import record_pairing, sweep_killed_runs
from tasks.record_comparisons import record_comparisons
from tasks.report import report


@flow(name="study", flow_run_name="study {study}", persist_result=False)
def study(study: str, settings: dict[str, Any] | None = None, refresh: list[str] | None = None) -> dict[str, Any]:
    """Run a study by name; `settings` are changes as in `--set`, `refresh` names trials to compute anew.

    Returns the counts of trials by status, the forward passes that were run now, and where the report is. When all is
    delivered, published and reported, raises TrialsFailed when a trial failed, PromisesBroken when rows break what a
    view promises, and ScoresMoved when a number lies beyond its interval from the one of the run before.
    """
    home = writable_home()
    prepare_environment(home)  # a worker has not been through `mneme run`
    refuse_later(home)
    asked = load_study(study, settings or {})
    refuse_absent_runner(asked.spec.runner)
    asking = Asking(study, asked.spec.device, asked.spec.trace_limit_mib, frozenset(refresh or ()))
    with watched(home, study) as watch:
        return _run(home, asked, asking, watch)


def _run(home: Home, asked: Study, asking: Asking, watch: Watch) -> dict[str, Any]:
    ledger.reset()
    sweep_killed_runs(home)
    answered = answer_models(home, asking, asked)
    answered_at = utc_now()
    publish(home)
    answers = _all(answered)
    overlaps = compare_circuits(home, asked, asking, answers)
    compared = compare(home, asked, [each.trial for each in answers])
    deliveries = {each.trial.trial_id: each.delivery_id for each in answers}
    page = report(home, asked.name, deliveries, [*compared.ids, *(str(each["comparison_id"]) for each in overlaps)])
    record_comparisons(home, asked.name, deliveries, compared.phase_changes, compared.claims)
    if _record(home, asked.name, answered, str(page)):
        publish(home)

    failed = [(each.trial.label, str(each.error)) for each in answers if each.status == "failed"]
    return watch.judge(_outcome(asked.name, answers, compared, str(page)), failed, answered_at)


def _all(answered: list[Answered]) -> list[Answer]:
    return [answer for each in answered for answer in each.answers]


def _record(home: Home, study: str, answered: list[Answered], page: str) -> bool:
    """Tell MLflow of each pairing, the steps of one training together; whether the lake has a new row of it."""
    is_new = False
    for group in _by_finished_pairing(answered):
        deliveries = [
            {"trial": answer.trial.model_dump(mode="json"), "delivery_id": answer.delivery_id}
            for answer in _all(group)
            if answer.status == "delivered"
        ]
        if deliveries:
            prompts = next((each.prompts for each in group if each.prompts), None)
            is_new |= record_pairing(home, study, deliveries, prompts, page)
    return is_new


def _by_finished_pairing(answered: list[Answered]) -> list[list[Answered]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for each in answered:
        groups[each.answers[0].trial.finished_pairing_label].append(each)
    return list(groups.values())


def _outcome(study: str, answers: list[Answer], compared: Compared, page: str) -> dict[str, Any]:
    statuses = [answer.status for answer in answers]
    return {
        "study": study,
        "trials": {status: statuses.count(status) for status in sorted(set(statuses))},
        "computed_trials": len({work.key for work in ledger.all() if work.stage == "deliver"}),
        "forwards": ledger.forwards,
        "claims": compared.verdicts,
        "trial_ids": [answer.trial.trial_id for answer in answers],
        "failed_trial_ids": [answer.trial.trial_id for answer in answers if answer.status == "failed"],
        "report": page,
    }
