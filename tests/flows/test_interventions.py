"""Interventions and head probes that run the model themselves: from pairs of the user's own down to SQL."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flows.study import study
from storage.home import Home
from storage.rows import rows
from tests.planted import FIRST_ID, INDUCTION_HEAD, copy_model, save

pytestmark = pytest.mark.usefixtures("prefect_server")
STUDY = """
models: [worded]
promptsets: [pairs]
probes:
  - head_patching
  - {probe: head_patching, variant: noise}
  - {probe: head_patching, variant: end}
  - direct_logit_attribution
  - {probe: head_ablation, variant: direct}
"""
ABLATION = """
parameters: {kind: zero, rank_by: induction, ks: [1], n_draws: 3}
variants:
  direct: {rank_by: direct_logit_attribution}
"""


@pytest.fixture
def worded(home: Home, configs: Path, tmp_path: Path) -> Home:
    """The planted model with a word for each token, pairs in which the answer changes, and a study of both."""
    folder = save(copy_model(), tmp_path / "worded")
    words = {f"w{each}": each for each in range(FIRST_ID)} | {"<first>": FIRST_ID}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<first>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"bos_token": "<first>", "eos_token": "<first>", "unk_token": "<first>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    lines = ["clean,corrupt,correct,wrong"]
    for item in range(6):
        said = [f"w{item * 11 + each}" for each in range(8)]
        changed = [*said[:4], f"w{100 + item}", *said[5:]]
        lines.append(f"{' '.join(said + said[:4])},{' '.join(changed + said[:4])},{said[4]},{changed[4]}")
    (configs / "pairs.csv").write_text("\n".join(lines) + "\n")
    (configs / "models" / "worded.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    (configs / "promptsets" / "pairs.yaml").write_text("generator: user_prompts\nfile: ../pairs.csv\n")
    (configs / "probes" / "head_ablation.yaml").write_text(ABLATION)
    (configs / "studies" / "worded.yaml").write_text(STUDY)
    return home


def test_the_head_that_copies_carries_the_answer_however_it_is_asked(worded: Home) -> None:
    outcome: dict[str, Any] = study("worded")
    assert outcome["trials"] == {"delivered": 5}
    share = """
        select e.variant, e.intervention, e.position_label, e.layer, e.head, e.unit, e.effect / b.value as share,
            e.normalised_effect, e.normalised_low, e.normalised_high
        from mart.head_effects as e
        inner join mart.behavior as b on e.trial_id = b.trial_id
        where b.readout = 'logit_difference_clean_minus_corrupt'
        order by e.variant, share desc
    """
    found = rows(worded, share)
    assert {each["unit"] for each in found} == {"logits"}
    tops = [each for each in found if (each["layer"], each["head"]) == INDUCTION_HEAD]
    assert [each["intervention"] for each in tops] == ["patch_denoise", "patch_noise", "patch_denoise"]
    assert [each["position_label"] for each in tops] == ["end", None, None]
    assert [each["share"] for each in tops] == pytest.approx([1, 1, 1], abs=1e-3)
    for column in ("effect", "low", "high"):
        assert [each[f"normalised_{column}"] for each in tops] == pytest.approx([1, 1, 1], abs=1e-3)
    assert [each["normalised_effect"] for each in found] == pytest.approx([each["share"] for each in found], abs=1e-9)
    unpaired = (
        "select count(*) as n from mart.head_effects where probe = 'head_ablation' and normalised_effect is not null"
    )
    assert rows(worded, unpaired) == [{"n": 0}]
    assert max(abs(each["share"]) for each in found if each not in tops) < 1e-3
    ranked = "select layer, head, unit from mart.head_ranking where probe = 'direct_logit_attribution' and rank = 1"
    assert rows(worded, ranked) == [{"layer": 1, "head": 0, "unit": "logits"}]
    (control,) = rows(worded, "select probe, k, value, control_high from mart.controls")
    assert control["probe"] == "head_ablation"
    assert control["value"] > 5 > control["control_high"]
    assert study("worded")["forwards"] == 0


def test_prompts_without_pairs_or_answers_are_not_applicable(worded: Home) -> None:
    settings = {"models": ["planted"], "promptsets": ["repeated_tokens"], "probes": ["head_patching"]}
    outcome: dict[str, Any] = study("worded", settings=settings)
    assert outcome["trials"] == {"not_applicable": 1}
    assert "no corrupt ones" in rows(worded, "select error from mart.trials")[0]["error"]
