"""Heads ranked on another promptset: every prompt is tested, the ranking is measured once, and a plan knows it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli.app import main
from flows.study import study
from storage.home import Home
from storage.rows import rows

pytestmark = pytest.mark.usefixtures("prefect_server")
STUDY = """
models: [planted]
promptsets: [non_repeated_tokens, repeated_tokens]
probes:
  - {probe: head_ablation_accuracy, variant: elsewhere}
  - {probe: head_ablation_accuracy, variant: worded}
overrides:
  promptsets.repeated_tokens.parameters.n_items: 6
  promptsets.repeated_tokens.parameters.period: 12
  promptsets.non_repeated_tokens.parameters.n_items: 5
  promptsets.non_repeated_tokens.parameters.period: 12
"""
ABLATION = """
parameters: {outcome: copy_accuracy, kind: zero, rank_by: "induction[without_first]", ks: [1], n_draws: 3}
variants:
  elsewhere: {rank_on: repeated_tokens}
  worded: {rank_on: natural_text}
  unknown: {rank_on: shuffled_tokens}
"""


@pytest.fixture
def ranked(home: Home, configs: Path) -> Home:
    """The planted model; heads ranked on prompts that repeat, and on texts, which its numbers cannot be."""
    (configs / "probes" / "head_ablation_accuracy.yaml").write_text(ABLATION)
    (configs / "studies" / "ranked.yaml").write_text(STUDY)
    return home


def test_a_ranking_of_other_prompts_tests_every_prompt_and_one_of_its_own_tests_half(
    ranked: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome: dict[str, Any] = study("ranked")
    assert outcome["trials"] == {"delivered": 2, "not_applicable": 2}
    (reason,) = {each["error"] for each in rows(ranked, "select error from mart.trials where variant = 'worded'")}
    assert "tokenizer" in str(reason)
    found = rows(ranked, "select promptset, value, n_items, n_draws from mart.controls order by promptset")
    assert [(each["promptset"], each["n_items"]) for each in found] == [
        ("non_repeated_tokens", 5),
        ("repeated_tokens", 3),  # the very prompts that rank: one half ranks, the other is tested
    ]
    assert found[1]["value"] == 1.0
    assert len([each.name for each in ranked.entries.rglob("measure-*")]) == 3  # one ranking serves both
    assert study("ranked")["forwards"] == 0
    assert "4 of 4 trials are answered; 0 to do" in plan(monkeypatch, capsys)
    unknown = "probes=[{probe: head_ablation_accuracy, variant: unknown}]"
    assert "the promptset that ranks its heads is not prepared yet" in plan(monkeypatch, capsys, "--set", unknown)


def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `mneme run ranked --plan` says, in one line."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["mneme", "run", "ranked", "--plan", *words])
    with pytest.raises(SystemExit):
        main()
    return " ".join(capsys.readouterr().out.split())
