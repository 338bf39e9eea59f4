"""Probes that read the weights alone: one number per head down to SQL, without interval or n, whatever the prompts."""

import math
from pathlib import Path
from typing import Any

import pytest

from flows.study import study
from storage.dossier import dossier
from storage.home import Home
from storage.rows import rows
from tests.planted import INDUCTION_HEAD

pytestmark = pytest.mark.usefixtures("prefect_server")
STUDY = """
models: [planted]
promptsets: [repeated_tokens, shuffled_tokens]
probes:
  - copying_score
  - {probe: copying_score, variant: effective}
  - {probe: copying_top5, variant: random_pairs}
  - {probe: head_ablation, variant: copying}
overrides:
  promptsets.repeated_tokens.parameters.n_items: 4
  promptsets.repeated_tokens.parameters.period: 12
  promptsets.shuffled_tokens.parameters.n_items: 4
  promptsets.shuffled_tokens.parameters.period: 12
"""
ABLATION = """
parameters: {kind: zero, rank_by: induction, ks: [1], n_draws: 3}
variants:
  copying: {rank_by: copying_score}
"""


@pytest.fixture
def asked(home: Home, configs: Path) -> Home:
    """The planted model, and a study of its weights on two promptsets."""
    (configs / "probes" / "head_ablation.yaml").write_text(ABLATION)
    (configs / "studies" / "weights.yaml").write_text(STUDY)
    return home


def test_the_planted_head_copies_in_sql_with_neither_interval_nor_prompts(asked: Home) -> None:
    outcome: dict[str, Any] = study("weights")
    assert outcome["trials"] == {"delivered": 8}
    found = rows(asked, "select * from mart.head_ranking where probe like 'copying%' order by trial_id, layer, head")
    assert len(found) == 3 * 2 * 8
    assert {(each["ci_low"], each["ci_high"], each["n_items"], each["n_clusters"]) for each in found} == {(None,) * 4}
    for each in found:
        if (each["layer"], each["head"]) != INDUCTION_HEAD:
            assert each["score"] is each["rank"] is None
        elif each["probe"] == "copying_score":
            assert each["score"] == pytest.approx(1, abs=1e-6)
            assert each["unit"] == "share of eigenvalues"
        else:
            assert each["score"] < 0.1
    ranked = "select probe, variant from mart.head_ranking where rank = 1 and score > 0.9 order by variant"
    expected = [{"probe": "copying_score", "variant": variant} for variant in ("effective", "primary")]
    assert rows(asked, ranked) == expected
    assert rows(asked, "select * from mart.item_scores where probe like 'copying%'") == []
    assert rows(asked, "select * from mart.reliability where probe like 'copying%'") == []


def test_the_weights_are_read_once_for_all_promptsets_and_can_rank_the_heads_of_an_ablation(asked: Home) -> None:
    study("weights")
    measured = [each.name for each in asked.entries.rglob("measure-*")]
    assert len(measured) == 3 + 2  # three of the weights, an ablation on each promptset
    repeated = "select value, control_high from mart.controls where promptset = 'repeated_tokens'"
    (control,) = rows(asked, repeated)
    assert control["value"] == pytest.approx(math.log(128), abs=1e-2)  # without its copying head the model guesses
    assert control["control_high"] < 0.1
    (ablation,) = rows(asked, "select trial_id from mart.controls where promptset = 'repeated_tokens'")
    assert "items per forward" in dossier(asked, ablation["trial_id"])
    assert study("weights")["forwards"] == 0
