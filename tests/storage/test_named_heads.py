"""Heads that curves name become rows: classes of indirect objects, with their counts as roles, and reused heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from storage.home import Home
from storage.lake import Lake
from storage.warehouse import publish
from tests.storage.named_heads import deliver_ioi_heads, deliver_reused_heads

Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def ask(home: Home) -> Ask:
    """Publish, then ask."""

    def answer(sql: str) -> list[tuple[Any, ...]]:
        assert publish(home).promises_broken == ()
        with duckdb.connect(str(home.results), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return answer


def test_a_head_of_two_classes_has_a_row_for_each(home: Home, ask: Ask) -> None:
    deliver_ioi_heads(Lake(home.lake))
    assert ask("select place, role, layer, head, score, threshold, cost from mart.ioi_heads order by place") == [
        (1, "name_mover", 3, 1, 0.6, 0.05, 1.5),
        (2, "s_inhibition", 2, 0, 0.2, 0.04, 0.7),
        (3, "induction", 1, 2, 0.9, 0.3, 0.1),
        (4, "duplicate_token", 1, 2, 0.35, 0.3, 0.1),
    ]


def test_a_circuit_without_heads_has_no_row(home: Home, ask: Ask) -> None:
    deliver_ioi_heads(Lake(home.lake), members=[])
    assert ask("select * from mart.ioi_heads") == []


def test_the_classes_are_roles_and_a_class_without_heads_counts_0_of_all_heads(home: Home, ask: Ask) -> None:
    deliver_ioi_heads(Lake(home.lake))
    assert ask("select role, layer, head, probe, evidence from mart.head_roles order by layer desc, role") == [
        ("name_mover", 3, 1, "ioi_circuit", "ioi_circuit 0.6, n 40"),
        ("s_inhibition", 2, 0, "ioi_circuit", "ioi_circuit 0.2, n 40"),
        ("duplicate_token", 1, 2, "ioi_circuit", "ioi_circuit 0.35, n 40"),
        ("induction", 1, 2, "ioi_circuit", "ioi_circuit 0.9, n 40"),
    ]
    counts = ask("select role, n_heads, n_measured, share, threshold from mart.role_counts order by role")
    assert counts == [
        ("backup_mover", 0, 16, 0.0, 0.05),
        ("duplicate_token", 1, 16, 1 / 16, 0.3),
        ("induction", 1, 16, 1 / 16, 0.3),
        ("name_mover", 1, 16, 1 / 16, 0.05),
        ("negative_mover", 0, 16, 0.0, 0.05),
        ("previous_token", 0, 16, 0.0, 0.3),
        ("s_inhibition", 1, 16, 1 / 16, 0.04),
    ]


def test_other_knock_outs_and_controls_give_no_role(home: Home, ask: Ask) -> None:
    deliver_ioi_heads(Lake(home.lake), variant="zero")
    deliver_ioi_heads(Lake(home.lake), variant="shuffled", is_control=True)
    assert ask("select distinct variant from mart.ioi_heads order by all") == [("shuffled",), ("zero",)]
    assert ask("select role from mart.head_roles union all select role from mart.role_counts") == []


def test_reused_heads_are_named_with_their_effects_on_both_promptsets(home: Home, ask: Ask) -> None:
    deliver_reused_heads(Lake(home.lake))
    columns = "layer, head, is_here, is_there, is_shared, effect_here, effect_there, stage, other_promptset"
    assert ask(f"select {columns} from mart.reused_heads order by place") == [
        (3, 1, True, True, True, 0.5, 0.9, "queries", "ioi_paper"),
        (0, 2, True, False, False, -0.3, 0.0, "queries", "ioi_paper"),
        (2, 0, False, True, False, 0.0, 0.4, "queries", "ioi_paper"),
    ]
