"""Baselines beside a model: from prompts of the user's own down to the table of behaviors."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flows.cli.summary import print_summary
from flows.study import study
from mneme.bigram import bigram_model
from storage.home import Home
from storage.rows import rows
from tests.planted import FIRST_ID, copy_model, save

pytestmark = pytest.mark.usefixtures("prefect_server")
ITEMS = 40
STUDY = """
models: [worded, blank, pairs]
promptsets: [lists]
probes:
  - answer_accuracy
  - {probe: copy_baseline, variant: first}
  - {probe: copy_baseline, variant: last}
  - {probe: copy_baseline, variant: most_frequent}
"""


def prompts() -> list[str]:
    """Lists that begin again, with the next word as answer; the wrong one stands before it as often as after it."""
    lines = ["prompt,correct,wrong"]
    for item in range(ITEMS):
        said = [f"w{(item * 3 + each) % 100}" for each in range(8)]
        other = f"w{101 + item % 20}"
        lead, wrong = (other, other) if item % 2 else ("w100", said[6])
        lines.append(f"{' '.join([lead, *said, *said[:4]])},{said[4]},{wrong}")
    return lines


@pytest.fixture
def compared(home: Home, configs: Path, tmp_path: Path) -> Home:
    """The planted copying model and two models that know nothing, all with one tokenizer."""
    words = {f"w{each}": each for each in range(FIRST_ID)} | {"<first>": FIRST_ID}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<first>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"bos_token": "<first>", "eos_token": "<first>", "unk_token": "<first>"}
    uniform = bigram_model(np.zeros((FIRST_ID + 1, FIRST_ID + 1)), 1.0, context=64, bos_token_id=FIRST_ID)
    for name, model in (("worded", copy_model()), ("uniform", uniform)):
        save(model, tmp_path / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(tmp_path / name)
    for name, folder, baseline in (
        ("worded", "worded", ""),
        ("blank", "uniform", "untrained"),
        ("pairs", "uniform", "bigram"),
    ):
        line = f"baseline: {baseline}\n" if baseline else ""
        path = configs / "models" / f"{name}.yaml"
        path.write_text(f"source: {{kind: local, path: {tmp_path / folder}}}\nbos_mode: none\n{line}")
    (configs / "lists.csv").write_text("\n".join(prompts()) + "\n")
    (configs / "promptsets" / "lists.yaml").write_text("generator: user_prompts\nfile: ../lists.csv\n")
    (configs / "studies" / "compared.yaml").write_text(STUDY)
    return home


def test_a_model_that_copies_the_right_word_has_learnt_it_and_its_baselines_stand_beside_it(
    compared: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = study("compared")
    assert outcome["trials"] == {"delivered": 12}
    table = """
        select model, accuracy, ci_low > 0.9 as is_sure, chance, n_items, untrained, bigram, copy_first, copy_last,
            copy_most_frequent, best_baseline, is_learnt
        from mart.behavior_table
    """
    expected = {"model": "worded", "accuracy": 1.0, "is_sure": True, "chance": 0.5, "n_items": ITEMS}
    expected |= {"untrained": 0.0, "bigram": 0.0, "copy_first": 0.5, "copy_last": 0.5, "copy_most_frequent": 0.5}
    assert rows(compared, table) == [expected | {"best_baseline": 0.5, "is_learnt": True}]
    copied = rows(compared, "select distinct forwards from mart.trials where probe = 'copy_baseline'")
    assert copied == [{"forwards": 0}]
    page = Path(outcome["report"]).read_text()
    assert page.count("<g><title>") == 1
    assert "chance 0.500, best baseline 0.500: learnt" in page
    assert _files_of_the_comparison(compared) == {"behavior_table.json", "pictures/behaviors.png"}
    print_summary(compared, outcome, 1.0)
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("lists ")]
    assert line.split() == ["lists", "1", "learnt", "0.5", "0.5", str(ITEMS)]


def test_baselines_that_another_study_asks_later_come_onto_the_page_of_this_one(compared: Home, configs: Path) -> None:
    alone = STUDY.replace("worded, blank, pairs", "worded").splitlines()[:5]
    (configs / "studies" / "alone.yaml").write_text("\n".join(alone) + "\n")
    before = Path(study("alone")["report"]).read_text()
    study("compared")
    again = study("alone")
    assert again["forwards"] == 0
    after = Path(again["report"]).read_text()
    assert "best baseline –: unknown" in before
    assert "best baseline 0.500: learnt" in after


def _files_of_the_comparison(home: Home) -> set[str]:
    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (recorded,) = client.search_runs(experiments, "attributes.run_name = 'compared / comparisons'")
    folders = client.list_artifacts(recorded.info.run_id)
    pictures = client.list_artifacts(recorded.info.run_id, "pictures")
    assert recorded.data.metrics == {"accuracy/lists/0/worded": 1.0}
    return {each.path for each in (*folders, *pictures)} - {"pictures", "phase_changes.json", "claims.json"}
