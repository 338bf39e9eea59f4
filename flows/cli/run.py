"""`mneme run`: a study with progress, a table of results and where to look next."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from flows.environment import prepare_environment
from storage.disk import refuse_full_disk
from storage.home import Home, writable_home
from storage.studies import Study, load_study


def run(
    study: Annotated[str, typer.Argument(help="Name of a study in configs/studies")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; repeat for more")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what is cached, why not, and the cost; run nothing")
    ] = False,
    refresh: Annotated[
        str, typer.Option("--refresh", help="Trials to compute anew: ids, probes or all, by comma")
    ] = "",
    workers: Annotated[
        int | None, typer.Option("--workers", help="How many models to work on at once, each in a process of its own")
    ] = None,
) -> None:
    """Run a study: what is delivered already is not computed again."""
    from storage.warehouse import refuse_later

    home = writable_home()
    refuse_later(home)
    asked = load_study(study, [*(settings or []), *([] if workers is None else [f"workers={workers}"])])
    prepare_environment(home)
    if plan:
        from flows.cli.plan_table import print_plan

        print_plan(home, asked)
        return
    anew = [each.strip() for each in refresh.split(",") if each.strip()]
    _refuse_unknown(asked, anew)
    refuse_full_disk(home.root)
    _run(home, asked, anew)


def _run(home: Home, asked: Study, anew: list[str]) -> None:
    from flows.cli.progress import Terminal
    from flows.cli.summary import print_summary
    from flows.study import study as study_flow
    from flows.troubles import RunTroubled
    from tasks.narrator import listening

    started = time.monotonic()
    _choose_server(home)
    try:
        with Terminal(len(asked.trials)) as terminal, listening(terminal):
            outcome: dict[str, Any] = study_flow(asked.name, settings=asked.settings, refresh=anew)
    except RunTroubled as trouble:
        print_summary(home, trouble.outcome, time.monotonic() - started)
        raise
    print_summary(home, outcome, time.monotonic() - started)


def _choose_server(home: Home) -> None:
    """Prefect's server is the one that is set, else one of this run."""
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        from flows.temporary_server import use_temporary_server

        use_temporary_server(home)


def _refuse_unknown(asked: Study, anew: list[str]) -> None:
    from mneme.errors import BadInput
    from storage.rendering import quoted

    trials = asked.trials
    names = {"all"} | {name for each in trials for name in (each.model, each.promptset, each.probe)}
    for each in anew:
        if each not in names and not any(trial.trial_id.startswith(each) for trial in trials):
            raise BadInput(
                f"--refresh {quoted(each)} names no trial of {asked.name}: give an id, a probe, a model or all"
            )
