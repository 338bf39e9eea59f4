"""The study's page, written anew when anything on it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage.entries import Entries
from storage.files import sha256_file
from storage.home import Home
from storage.identity import digest
from tasks.stage import Value, stage


def report(home: Home, study: str, deliveries: dict[str, str], comparisons: Sequence[str]) -> Path:
    """The report of a study on these trials (trial id -> delivery id), from the cache when nothing on it changed."""
    shown = {"study": study, "deliveries": deliveries, "comparisons": sorted(comparisons), "home": str(home.root)}
    elsewhere = _from_elsewhere(home, study, deliveries)
    key = f"report-{digest({**shown, 'page': _page_code(study), 'elsewhere': elsewhere})}"
    known = Entries(home.entries).read(key)
    path = home.reports / f"{study}.html"
    is_current = known is not None and path.is_file() and sha256_file(path) == known["sha256"]
    write_page.run(
        home, key, study, {"study": study, "trial_ids": [*deliveries]}, refresh=known is not None and not is_current
    )
    return path


@stage("report")
def write_page(home: Home, study: str, trial_ids: list[str]) -> Value:
    """Render the page from the published results."""
    from storage.report.page import write_report

    path = write_report(home, study, home.reports / f"{study}.html", trial_ids)
    return {"sha256": sha256_file(path)}


def _from_elsewhere(home: Home, study: str, deliveries: dict[str, str]) -> dict[str, Any]:
    """What the page shows beside the study's own deliveries: baselines that other studies asked, and trainings."""
    from storage.reader import reading
    from storage.report.questions import FROM_ELSEWHERE, ask_all

    with reading(home) as connection:
        answers = ask_all(connection, study, deliveries, FROM_ELSEWHERE)
    return {name: answer.rows for name, answer in answers.items()}


def _page_code(study: str) -> str:
    """What shapes a page beside its rows: the code, the views, and the studies that the study is made of."""
    from storage.report.parts import read_parts
    from storage.views import fingerprint, list_views

    folder = Path(__file__).resolve().parent.parent / "storage" / "report"
    files = {path.name: sha256_file(path) for path in sorted(folder.glob("*")) if path.is_file()}
    parts = [asdict(each) for each in read_parts(study)]
    return digest({"files": files, "views": fingerprint(list_views()), "parts": parts})
