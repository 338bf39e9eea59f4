"""The recipe of recall by memories of different sizes: what it learns, measures, repeats and refuses."""

import hashlib
import json
import math

import pytest
import torch

from mneme.errors import BadInput
from mneme.model import load_model
from mneme.promptsets.multi_query_recall import multi_query_recall
from mneme.recipe import Workshop
from mneme.recipes.pair_recall import pair_recall
from mneme.toys.recall import RecallTask
from mneme.vocabulary import read_vocabulary

SMALL = {
    "attention": {"shape": "attention", "n_layers": 1, "width": 32},
    "lstm": {"shape": "lstm", "n_layers": 1, "width": 8, "hidden_rate": 0.0},
    "mamba2": {"shape": "mamba2", "n_layers": 1, "width": 32, "state_width": 2},
}
TASK = {"n_keys": 6, "n_pairs": [2, 4], "tokens_per_step": 64}


def trained(folder, seed=0, **changes):
    return pair_recall(Workshop(folder), seed=seed, **(TASK | {"max_steps": 3} | changes))


def sha(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("shape", SMALL)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shape, tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        trained(tmp_path / place, seed, **SMALL[shape])
    assert sha(tmp_path / "a") == sha(tmp_path / "b") != sha(tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", SMALL)
def test_it_measures_recall_by_length_beside_chance_and_the_size_of_its_memory(shape, tmp_path):
    trained(tmp_path, keep=[0, 3], **SMALL[shape])
    rows = json.loads((tmp_path / "training.json").read_text())["measures"]
    found = {row["measure"]: row for row in rows if row["step"] == 3}
    assert {"recall_2", "recall_4", "chance", "state_numbers"} <= found.keys()
    assert (found["chance"]["value"], found["state_numbers"]["unit"]) == (0.25, "numbers")
    assert found["recall_4"]["ci_low"] <= found["recall_4"]["value"] <= found["recall_4"]["ci_high"]
    assert load_model(tmp_path).attention == (shape == "attention")
    assert load_model(tmp_path / "checkpoints" / "step-0").hf.config.vocab_size == 12


@pytest.mark.parametrize("shape", SMALL)
def test_the_promptset_of_the_task_has_the_ids_that_the_model_was_trained_on(shape, tmp_path):
    trained(tmp_path, **SMALL[shape])
    vocabulary = read_vocabulary(tmp_path, "native")
    prompts = multi_query_recall(vocabulary, seed=0, n_items=3, n_pairs=[2, 4], n_keys=6)
    task = RecallTask(6, 4)
    assert (prompts.clean.ids[:, 0] == task.first_id).all()
    assert set(prompts.correct_ids.flatten().tolist()) <= set(range(task.first_value, task.first_id))
    assert (prompts.clean.ids[torch.arange(6), prompts.clean.labels["key"]] <= task.n_keys).all()


def test_the_first_loss_is_that_of_a_guess_among_the_values(tmp_path):
    for n_values in (4, 9):
        loss = trained(tmp_path / str(n_values), max_steps=1, n_values=n_values, **SMALL["attention"])["loss"]
        assert loss == pytest.approx(math.log(n_values), abs=0.05)


def test_lists_are_let_in_one_length_after_the_other(tmp_path):
    """Up to a quarter of the steps there are lists of 2 pairs alone: longer ones in the spec change nothing before."""
    for place, n_pairs in (("short", [2]), ("both", [2, 4])):
        trained(tmp_path / place, max_steps=8, n_pairs=n_pairs, keep=[2, 8], **SMALL["lstm"])
    early, late = (
        [load_model(tmp_path / place / "checkpoints" / f"step-{step}").hf.state_dict() for place in ("short", "both")]
        for step in (2, 8)
    )
    assert all(torch.equal(early[0][name], early[1][name]) for name in early[0])
    assert not all(torch.equal(late[0][name], late[1][name]) for name in late[0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shape": "gru"}, "shape"),
        ({"n_pairs": [2, 7]}, "n_pairs"),
        ({"n_keys": 1}, "n_keys"),
        ({"width": 33}, "no multiple of 32"),
        ({"tokens_per_step": 0}, "tokens_per_step"),
        ({"hidden_rate": -1.0}, "hidden_rate"),
        ({"keep": [9]}, "keep"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_training(changed, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        trained(tmp_path, **changed)
    assert not list(tmp_path.iterdir())
