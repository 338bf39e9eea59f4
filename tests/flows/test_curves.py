"""Curves and conditions through the whole pipeline: from prompts that differ on purpose down to SQL and the screen."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flows.cli.summary import print_summary
from flows.study import study
from storage.dossier import dossier
from storage.home import Home
from storage.rows import rows
from tests.planted import BLOCK, FIRST_ID, copy_model, save

pytestmark = pytest.mark.usefixtures("prefect_server")
STUDY = """
models: [worded]
promptsets: [told]
probes: [logit_lens, answer_accuracy]
"""
DEPTHS = (0.0, 0.0, 0.0, 0.5, 0.5, 0.5)


@pytest.fixture
def told(home: Home, configs: Path, tmp_path: Path) -> Home:
    """The planted model with a word for each token; prompts that it can answer at depth 0, and cannot at depth 0.5."""
    folder = save(copy_model(), tmp_path / "worded")
    words = {f"w{each}": each for each in range(FIRST_ID)} | {"<first>": FIRST_ID}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<first>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"bos_token": "<first>", "eos_token": "<first>", "unk_token": "<first>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    lines = ["prompt,correct,wrong,condition_depth"]
    for item, depth in enumerate(DEPTHS):
        said = [f"w{item * 11 + each}" for each in range(8)]
        answers = (said[4], said[6]) if depth == 0 else (said[6], said[4])
        lines.append(f"{' '.join(said + said[:4])},{','.join(answers)},{depth}")
    (configs / "told.csv").write_text("\n".join(lines) + "\n")
    (configs / "models" / "worded.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    (configs / "promptsets" / "told.yaml").write_text("generator: user_prompts\nfile: ../told.csv\n")
    (configs / "studies" / "told.yaml").write_text(STUDY)
    return home


def test_a_curve_and_a_behavior_by_condition_come_down_to_sql(told: Home, capsys: pytest.CaptureFixture[str]) -> None:
    outcome: dict[str, Any] = study("told")
    assert outcome["trials"] == {"delivered": 2}
    lens = "select x, value, n_items, unit from mart.curves where measure = 'answer_rank' order by x"
    before, _, after = (list(each.values()) for each in rows(told, lens))
    assert before == [0, BLOCK, 6, "rank"]  # nothing is written yet: every token is as likely
    assert after == [2, pytest.approx((1 + BLOCK) / 2), 6, "rank"]  # the copied token, or one that ties with the rest
    items = "select item, value from mart.curve_items where measure = 'answer_rank' and x = 2 order by item"
    assert [each["value"] for each in rows(told, items)] == [1, 1, 1, BLOCK, BLOCK, BLOCK]
    by_depth = "select x_name, x, value, ci_low, n_items from mart.curves where probe = 'answer_accuracy' order by x"
    found = rows(told, by_depth)
    assert [(each["x_name"], each["x"], each["value"], each["n_items"]) for each in found] == [
        ("depth", 0.0, 1.0, 3),
        ("depth", 0.5, 0.0, 3),
    ]
    assert 0.4 < found[0]["ci_low"] < 0.5  # Wilson's, of 3 of 3
    conditions = rows(told, "select distinct probe, item, value from mart.item_conditions order by probe, item")
    assert [each["value"] for each in conditions] == [*DEPTHS, *DEPTHS]
    assert study("told")["forwards"] == 0
    print_summary(told, outcome, 1.0)
    shown = capsys.readouterr().out
    assert "curves, mean over prompts" in shown
    assert "answer_rank" in shown
    (trial,) = rows(told, "select trial_id from mart.trials where level = 'curve'")
    told_about = dossier(told, trial["trial_id"])
    assert "curve_items" in told_about
    assert "item_conditions" in told_about
