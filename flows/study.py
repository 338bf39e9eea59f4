"""The study: every trial of a grid answered, recorded, published and reported."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

from prefect import flow

from flows.answers import Answer, Answered, Asking, answer_pairing
from flows.comparisons import Compared, compare
from flows.environment import prepare_environment
from mneme.errors import MnemeError
from storage.home import Home, writable_home
from storage.studies import load_study
from tasks.ledger import ledger
from tasks.models import release
from tasks.publish import publish
from tasks.record import record_pairing, sweep_killed_runs
from tasks.record_comparisons import record_comparisons
from tasks.report import report


class TrialsFailed(MnemeError):
    """Some trials failed; the others are delivered and published. `outcome` is what the study returns otherwise."""

    def __init__(self, sentence: str, outcome: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.outcome = outcome


@flow(name="study", flow_run_name="study {study}", persist_result=False)
def study(study: str, settings: dict[str, Any] | None = None, refresh: list[str] | None = None) -> dict[str, Any]:
    """Run a study by name; `settings` are changes as in `--set`, `refresh` names trials to compute anew.

    Returns the counts of trials by status, the forward passes that were run now, and where the report is. Raises
    TrialsFailed, after everything else is delivered, published and reported, when a trial failed.
    """
    home = writable_home()
    prepare_environment(home)  # a worker has not been through `mneme run`
    asked = load_study(study, settings or {})
    asking = Asking(study, asked.spec.device, asked.spec.trace_limit_mib, frozenset(refresh or ()))
    ledger.reset()
    sweep_killed_runs(home)

    answered = [
        answer_pairing(home, asking, list(trials))
        for _, trials in itertools.groupby(asked.trials, key=lambda trial: trial.pairing_label)
    ]
    release()
    publish(home)
    answers = _all(answered)
    compared = compare(home, asked, [each.trial for each in answers])
    deliveries = {each.trial.trial_id: each.delivery_id for each in answers}
    page = report(home, study, deliveries, compared.ids)
    record_comparisons(home, study, deliveries, compared.phase_changes, compared.claims)
    if _record(home, study, answered, str(page)):
        publish(home)

    return _outcome(study, answers, compared, str(page))


def _all(answered: list[Answered]) -> list[Answer]:
    return [answer for each in answered for answer in each.answers]


def _record(home: Home, study: str, answered: list[Answered], page: str) -> bool:
    """Tell MLflow of each pairing, the steps of one training together; whether anything was new to it."""
    before = len(ledger.all())
    for group in _by_finished_pairing(answered):
        deliveries = [
            {"trial": answer.trial.model_dump(mode="json"), "delivery_id": answer.delivery_id}
            for answer in _all(group)
            if answer.status == "delivered"
        ]
        if deliveries:
            prompts = next((each.prompts for each in group if each.prompts), None)
            record_pairing(home, study, deliveries, prompts, page)
    return len(ledger.all()) > before


def _by_finished_pairing(answered: list[Answered]) -> list[list[Answered]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for each in answered:
        groups[each.answers[0].trial.finished_pairing_label].append(each)
    return list(groups.values())


def _outcome(study: str, answers: list[Answer], compared: Compared, page: str) -> dict[str, Any]:
    statuses = [answer.status for answer in answers]
    outcome = {
        "study": study,
        "trials": {status: statuses.count(status) for status in sorted(set(statuses))},
        "computed_trials": len({work.key for work in ledger.all() if work.stage == "deliver"}),
        "forwards": ledger.forwards,
        "claims": compared.verdicts,
        "trial_ids": [answer.trial.trial_id for answer in answers],
        "report": page,
    }
    failed = [answer for answer in answers if answer.status == "failed"]
    if failed:
        first = failed[0]
        raise TrialsFailed(
            f"{len(failed)} of {len(answers)} trials of {study} failed, the others are delivered; "
            f"the first, {first.trial.label}: {first.error}",
            outcome,
        )
    return outcome
