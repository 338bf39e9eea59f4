"""The study's page, written anew when anything on it changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.entries import Entries
from storage.files import sha256_file
from storage.home import Home
from storage.identity import digest
from tasks.stage import Value, stage


def report(home: Home, study: str, deliveries: dict[str, str], comparisons: Sequence[str]) -> Path:
    """The report of a study on these trials (trial id -> delivery id), from the cache when nothing on it changed."""
    shown = {"study": study, "deliveries": deliveries, "comparisons": sorted(comparisons), "home": str(home.root)}
    key = f"report-{digest({**shown, 'page': _page_code()})}"
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


def _page_code() -> str:
    folder = Path(__file__).resolve().parent.parent / "storage" / "report"
    return digest({path.name: sha256_file(path) for path in sorted(folder.glob("*")) if path.is_file()})
