"""The recipes of toy tasks: the same seed gives the same weights, what they measure, and what they refuse."""

import hashlib
import json

import pytest
import torch

from mneme.errors import BadInput
from mneme.model import load_model
from mneme.recipe import Workshop
from mneme.recipes.bigram_backcopy import bigram_backcopy
from mneme.recipes.in_context_labels import in_context_labels
from mneme.recipes.modular_arithmetic import all_sums, modular_arithmetic

SMALL = {
    bigram_backcopy: {"width": 8, "length": 16, "batch_size": 4},
    in_context_labels: {"width": 8, "n_classes": 32, "n_novel": 16, "batch_size": 4},
    modular_arithmetic: {"width": 8, "modulus": 13},
}
MEASURED = {
    bigram_backcopy: {"sink_score", "excess_loss_trigger", "excess_loss_other", "value_ratio", "to_first_other"},
    in_context_labels: {
        "icl",
        "iwl",
        "icl_swap",
        "iwl_swap",
        "induction_strength",
        "previous_token_strength",
        "chance",
    },
    modular_arithmetic: {"train_accuracy", "test_accuracy", "head_cosine", "entropy_spread", "chance"},
}
RECIPES = list(SMALL)


def sha(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(recipe, tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    hashes = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        recipe(Workshop(tmp_path / place), seed=seed, max_steps=3, keep=[], **SMALL[recipe])
        hashes.append(sha(tmp_path / place))
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_measures_before_and_while_it_trains_and_what_it_saves_loads(recipe, tmp_path):
    facts = recipe(Workshop(tmp_path), seed=0, max_steps=2, keep=[0, 2], **SMALL[recipe])
    assert facts["steps"] == 2
    rows = json.loads((tmp_path / "training.json").read_text())["measures"]
    for step in (0, 2):
        found = {row["measure"]: row for row in rows if row["step"] == step}
        assert MEASURED[recipe] <= found.keys()
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows if row["ci_low"] is not None)
    assert load_model(tmp_path).attention
    assert load_model(tmp_path / "checkpoints" / "step-0").attention


def test_the_vectors_of_labels_and_items_stay_as_they_were(tmp_path):
    in_context_labels(Workshop(tmp_path), seed=0, max_steps=2, keep=[0], **SMALL[in_context_labels])
    first, last = load_model(tmp_path / "checkpoints" / "step-0"), load_model(tmp_path)
    assert torch.equal(first.hf.transformer.wte.weight, last.hf.transformer.wte.weight)
    assert not torch.equal(first.hf.transformer.wpe.weight, last.hf.transformer.wpe.weight)


@pytest.mark.parametrize("first", ["constant", "none"])
def test_backcopy_without_normalisation_is_behavior_only(first, tmp_path):
    small = SMALL[bigram_backcopy]
    bigram_backcopy(Workshop(tmp_path), seed=0, max_steps=2, attention="sigmoid", first=first, keep=[], **small)
    assert not load_model(tmp_path).attention


def test_every_sum_stands_there_once():
    prompts, sums = all_sums(13)
    assert len({tuple(each) for each in prompts.tolist()}) == 169
    assert all(
        (a + b) % 13 == c and sign == 13 for (a, b, sign), c in zip(prompts.tolist(), sums.tolist(), strict=True)
    )


def test_shuffled_sums_are_another_task(tmp_path):
    for place, has_shuffled_sums in (("a", False), ("b", True)):
        modular_arithmetic(
            Workshop(tmp_path / place), seed=0, max_steps=2, keep=[], has_shuffled_sums=has_shuffled_sums,
            **SMALL[modular_arithmetic],
        )  # fmt: skip
    assert sha(tmp_path / "a") != sha(tmp_path / "b")


@pytest.mark.parametrize(
    ("recipe", "changed", "words"),
    [
        (bigram_backcopy, {"attention": "relu"}, "attention"),
        (bigram_backcopy, {"first": "often"}, "first"),
        (bigram_backcopy, {"length": 2}, "length"),
        (bigram_backcopy, {"width": 9, "n_heads": 2}, "no multiple"),
        (in_context_labels, {"burstiness": 3}, "does not divide"),
        (in_context_labels, {"batch_size": 0}, "batch_size"),
        (modular_arithmetic, {"modulus": 3}, "modulus"),
        (modular_arithmetic, {"n_heads": 1}, "n_heads"),
        (modular_arithmetic, {"train_share": 1.0}, "train_share"),
        (modular_arithmetic, {"keep": "often"}, "keep"),
    ],
)
def test_what_does_not_fit_together_is_refused(recipe, changed, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        recipe(Workshop(tmp_path), seed=0, **{"max_steps": 2, **SMALL[recipe], **changed})
