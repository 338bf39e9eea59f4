"""A page has a part for each study that its study includes; one that includes none, or is gone, is one part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.report.page import write_report
from storage.report.parts import Part, part_of_claim, part_of_trials, read_parts
from storage.warehouse import publish
from tests.storage.rows import comparison_row, deliver_answer, deliver_head_scores, deliver_trial
from tests.storage.test_report import Page

FIRST = Part("first", "", ("needle", "ioi"), (("induction", "primary"),), ("one",))
SECOND = Part("second", "", ("needle",), (("induction", "primary"), ("induction", "without_first")), ("two",))


def row(trial_id: str, promptset: str, variant: str = "primary", probe: str = "induction") -> dict[str, Any]:
    return {"trial_id": trial_id, "promptset": promptset, "probe": probe, "variant": variant}


def test_a_trial_belongs_to_the_first_part_that_asks_it_and_to_the_last_where_none_does() -> None:
    trials = [
        row("a", "needle"),
        row("b", "needle", "without_first"),
        row("c", "ioi"),
        row("d", "ioi", probe="entropy"),
    ]
    assert part_of_trials([FIRST, SECOND], trials) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert (part_of_claim([FIRST, SECOND], "one"), part_of_claim([FIRST, SECOND], "gone")) == (0, 1)
    assert part_of_trials([Part()], trials) == dict.fromkeys("abcd", 0)


def test_findings_has_a_part_for_each_study_that_it_includes() -> None:
    parts = {each.name: each for each in read_parts("findings")}
    assert {"retrieval", "retrieval_masking", "sinks", "layers"} <= parts.keys()
    assert "needle_grid" in parts["retrieval"].promptsets
    assert ("retrieval_score", "shifted") in parts["retrieval"].probes
    assert "some_heads_retrieve" in parts["retrieval"].claims


def test_a_study_that_includes_none_and_one_that_is_gone_are_one_part() -> None:
    assert read_parts("retrieval") == read_parts("no_such_study") == [Part()]


@pytest.fixture
def page(tmp_path: Path) -> str:
    """A page of the study `findings` with a head trial of two of its parts."""
    home = Home(tmp_path)
    lake = Lake(home.lake)
    for probe, promptset in (("retrieval_score", "needle"), ("first_token_sink", "told_domains")):
        deliver_trial(lake, f"d-{probe}", trial_id=f"t-{probe}", probe=probe, promptset=promptset)
        deliver_answer(lake, "findings", f"t-{probe}", f"d-{probe}")
        deliver_head_scores(lake, f"d-{probe}", {(0, 0): 0.7, (0, 1): 0.1})
    claim = comparison_row("some_heads_retrieve", study="findings")
    lake.deliver("comparisons", "findings", pl.DataFrame([claim], infer_schema_length=None))
    publish(home)
    return write_report(home, "findings", tmp_path / "page.html").read_text()


def test_each_part_has_its_own_sections_in_the_contents_of_the_page(page: str) -> None:
    parsed = Page(page)
    assert parsed.unbalanced == []
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [each for each in parsed.ids if each in ("retrieval", "sinks", "layers")] == ["retrieval", "sinks"]
    assert {"retrieval-ranking", "retrieval-maps", "retrieval-profiles", "sinks-maps"} <= set(parsed.ids)
    retrieval, sinks = page.split('<h2 id="sinks">')
    assert "some_heads_retrieve" in retrieval.split('<h2 id="retrieval">')[1]
    assert "some_heads_retrieve" not in sinks
    assert "first_token_sink" in sinks
