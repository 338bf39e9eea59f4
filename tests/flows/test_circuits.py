"""Circuits through the whole pipeline: from pairs of the user's own down to SQL."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flows.study import study
from flows.troubles import TrialsFailed
from mneme.errors import BadInput
from storage.dossier import dossier
from storage.home import Home
from storage.rows import rows
from tests.planted import FIRST_ID, copy_model, save

pytestmark = pytest.mark.usefixtures("prefect_server")
STUDY = """
models: [worded]
promptsets: [pairs]
probes: [edge_circuits, {probe: edge_circuits, variant: eap}]
"""
PROBE = """
parameters: {fractions: [0.02, 0.04, 0.5, 1.0], n_random: 3, n_knockouts: 2, n_single: 2, n_exact_top: 4,
  n_exact_random: 4}
variants:
  eap: {method: eap, n_random: 0, n_knockouts: 0, n_single: 0, n_exact_top: 0}
"""
N_ITEMS = 12


def write_pairs(path: Path, *, differ: bool = True, n_swapped: int = 0, more: str = "") -> None:
    """Pairs of words and their copy, whose answer is another word where the fifth differs.

    The first `n_swapped` pairs take the right answer for the wrong one; `more` stands before each corrupt prompt.
    """
    lines = ["clean,corrupt,correct,wrong"]
    for item in range(N_ITEMS):
        said = [f"w{item * 9 + each}" for each in range(8)]
        changed = [*said[:4], f"w{110 + item}", *said[5:]] if differ else [*said[:6], f"w{110 + item}", said[7]]
        answers = (said[4], changed[4] if differ else f"w{(item * 9 + 40) % 100}")
        answers = answers[::-1] if item < n_swapped else answers
        lines.append(f"{' '.join(said + said[:4])},{more}{' '.join(changed + said[:4])},{','.join(answers)}")
    path.write_text("\n".join(lines) + "\n")


def files_of(home: Home, run: str, folder: str) -> set[str]:
    """What MLflow holds in a folder of the run of that name."""
    client = MlflowClient(f"sqlite:///{home.mlflow_database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (recorded,) = client.search_runs(experiments, f"attributes.run_name = '{run}'")
    return {each.path for each in client.list_artifacts(recorded.info.run_id, folder)}


@pytest.fixture
def worded(home: Home, configs: Path, tmp_path: Path) -> Home:
    """The planted model with a word for each token, pairs in which the answer changes, and a study of both."""
    folder = save(copy_model(), tmp_path / "worded")
    words = {f"w{each}": each for each in range(FIRST_ID)} | {"<first>": FIRST_ID}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<first>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"bos_token": "<first>", "eos_token": "<first>", "unk_token": "<first>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    write_pairs(configs / "pairs.csv")
    (configs / "models" / "worded.yaml").write_text(f"source: {{kind: local, path: {folder}}}\n")
    (configs / "promptsets" / "pairs.yaml").write_text("generator: user_prompts\nfile: ../pairs.csv\n")
    (configs / "probes" / "edge_circuits.yaml").write_text(PROBE)
    (configs / "studies" / "worded.yaml").write_text(STUDY)
    return home


def test_the_two_edges_that_copy_are_the_circuit_from_the_scores_down_to_sql(worded: Home) -> None:
    outcome: dict[str, Any] = study("worded")
    assert outcome["trials"] == {"delivered": 2}
    found = rows(
        worded, "select * from mart.circuits where variant = 'primary' and ablation = 'corrupt' order by n_edges"
    )
    assert [(each["n_edges_requested"], each["n_edges"]) for each in found] == [(2, 2), (4, 3), (55, 18), (110, 110)]
    assert [each["faithfulness"] for each in found] == pytest.approx([1] * 4)
    assert [each["completeness"] for each in found] == pytest.approx([0] * 4, abs=1e-6)
    assert [each["is_selected"] for each in found] == [True, False, False, False]
    assert (found[0]["control_mean"], found[0]["n_draws"], found[0]["p_value"]) == (0, 3, 0.25)
    assert {each["n_items"] for each in found} == {N_ITEMS // 2}
    edges = "select variant, source || '->' || destination as edge, exact_effect from mart.circuit_edges"
    kept = rows(worded, f"{edges} where is_selected order by variant, edge")
    path = ["a1.h0->logits", "input->a1.h0<v>"]
    assert [each["edge"] for each in kept] == path * 2
    assert [each["exact_effect"] for each in kept[:2]] == [None, None]  # of the variant that checks none
    assert kept[2]["exact_effect"] == pytest.approx(kept[3]["exact_effect"])
    measures = "select measure, ablation, level, value, unit from mart.circuit_measures where variant = 'primary'"
    by_name = {(each["measure"], each["ablation"] or each["level"]): each["value"] for each in rows(worded, measures)}
    assert by_name["cpr", "corrupt"] == pytest.approx(1 - 2 / 110)
    assert by_name["cmd", "corrupt"] == pytest.approx(0, abs=1e-6)
    assert by_name["bootstrap_jaccard", "edge"] == by_name["split_half_jaccard", "node"] == 1
    assert {ablation for _, ablation in by_name} == {"corrupt", "mean", "zero", "edge", "node", None}
    again: dict[str, Any] = study("worded")
    assert (again["forwards"], again["computed_trials"]) == (0, 0)
    (trial,) = rows(worded, "select trial_id from mart.trials where variant = 'primary'")
    assert "circuit_edges" in dossier(worded, trial["trial_id"])


def test_pairs_on_which_the_readout_does_not_change_are_not_applicable_and_the_study_goes_on(
    worded: Home, configs: Path
) -> None:
    write_pairs(configs / "pairs.csv", differ=False)
    outcome: dict[str, Any] = study("worded", settings={"probes": ["edge_circuits", "logit_difference"]})
    assert outcome["trials"] == {"delivered": 1, "not_applicable": 1}
    (refused,) = rows(worded, "select error from mart.trials where status = 'not_applicable'")
    assert "there is nothing to explain" in refused["error"]


PAIRS: dict[str, tuple[dict[str, Any], str, str]] = {
    "undecided": ({"n_swapped": N_ITEMS // 2}, "not_applicable", "there is nothing to explain"),
    "swapped": ({"n_swapped": N_ITEMS}, "not_applicable", "it falls, so that a circuit that keeps it would keep a mis"),
    "unequal": ({"more": "w90 "}, "failed", "clean and corrupt differ in their number of tokens"),
}


def test_what_has_no_circuit_is_a_sentence_in_its_trial_and_the_others_go_on(
    worded: Home, configs: Path, tmp_path: Path
) -> None:
    for name, (changes, *_) in PAIRS.items():
        write_pairs(configs / f"{name}.csv", **changes)
        (configs / "promptsets" / f"{name}.yaml").write_text(f"generator: user_prompts\nfile: ../{name}.csv\n")
    packed = Path(shutil.copytree(tmp_path / "worded", tmp_path / "packed"))
    weights = load_file(packed / "model.safetensors")
    narrow = {name: each.to(torch.int8) if name.endswith("c_fc.weight") else each for name, each in weights.items()}
    save_file(narrow, packed / "model.safetensors", {"format": "pt"})
    (configs / "models" / "packed.yaml").write_text(f"source: {{kind: local, path: {packed}}}\n")
    settings = {"models": ["worded", "packed"], "promptsets": ["pairs", *PAIRS], "probes": ["edge_circuits"]}
    settings |= {"probes.edge_circuits.parameters.fractions": [0.01, 0.02, 1.0]}
    with pytest.raises(TrialsFailed, match=r"^5 of 8 trials of worded failed, the others are delivered"):
        study("worded", settings=settings)
    asked = "select model, promptset, status, error from mart.trials"
    found = {(each["model"], each["promptset"]): each for each in rows(worded, asked)}
    assert {found["packed", name]["status"] for name in ("pairs", *PAIRS)} == {"failed"}
    assert "c_fc.weight as I8, which is quantised" in found["packed", "pairs"]["error"]
    for name, (_, status, sentence) in PAIRS.items():
        assert found["worded", name]["status"] == status
        assert sentence in found["worded", name]["error"]
    asked = "select n_edges_requested, n_edges, faithfulness, control_mean, is_selected from mart.circuits"
    one, *_ = rows(worded, f"{asked} where ablation = 'corrupt' order by n_edges_requested")
    assert one == {  # a single edge hangs in the air, and is pruned
        "n_edges_requested": 1,
        "n_edges": 0,
        "faithfulness": 0.0,
        "control_mean": None,
        "is_selected": False,
    }


def test_circuits_of_two_promptsets_are_compared_and_exchanged(worded: Home, configs: Path) -> None:
    (configs / "promptsets" / "again.yaml").write_text("generator: user_prompts\nfile: ../pairs.csv\n")
    settings = {"promptsets": ["pairs", "again"], "probes": ["edge_circuits"], "overlaps": ["edge_circuits"]}
    study("worded", settings=settings)
    found = rows(worded, "select * from mart.circuit_overlap order by promptset, selection, level")
    assert [(each["promptset"], each["other_promptset"]) for each in found] == [("again", "pairs")] * 4 + [
        ("pairs", "again")
    ] * 4
    assert [(each["selection"], each["level"]) for each in found[:4]] == [
        ("faithful", "edge"),
        ("faithful", "node"),
        ("matched", "edge"),
        ("matched", "node"),
    ]
    edge, node, *_ = found
    assert (edge["n_a"], edge["n_b"], edge["n_shared"], edge["n_universe"], edge["jaccard"]) == (2, 2, 2, 110, 1.0)
    assert (node["n_a"], node["n_shared"], node["n_universe"]) == (1, 1, 10)
    assert edge["p_value"] == pytest.approx(1 / (110 * 109 / 2))
    assert edge["ceiling"] == edge["score_cosine"] == pytest.approx(1)
    assert edge["control"] < 0.5
    assert (edge["own_faithfulness"], edge["cross_faithfulness"]) == pytest.approx((1, 1))
    assert (edge["dissociation"], edge["is_double_dissociation"]) == (pytest.approx(0), False)
    assert node["cross_faithfulness"] is None
    pictures = {f"pictures/{name}.worded.png" for name in ("cross_faithfulness", "faithfulness", "overlap")}
    assert files_of(worded, "worded / comparisons", "pictures") == pictures
    of_pairs = files_of(worded, "worded / pairs[0]", "circuits")
    assert of_pairs == {f"circuits/edge_circuits.{suffix}" for suffix in ("json", "svg")}
    again: dict[str, Any] = study("worded", settings=settings)
    assert (again["forwards"], again["computed_trials"]) == (0, 0)


def test_overlaps_of_what_finds_no_circuits_are_refused_before_anything_runs(worded: Home) -> None:
    with pytest.raises(BadInput, match="`overlaps` compares circuits, but logit_difference is of level behavior"):
        study("worded", settings={"probes": ["logit_difference"], "overlaps": ["logit_difference"]})
    with pytest.raises(BadInput, match=r"`overlaps` names edge_circuits\[greedy\], which is none of its probes"):
        study("worded", settings={"overlaps": [{"probe": "edge_circuits", "variant": "greedy"}]})
