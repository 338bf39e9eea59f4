"""Every shape trains on the same documents, is saved whole and opens as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mneme.errors import BadInput
from mneme.microworld.documents import BEHAVIORS
from mneme.model import load_model
from mneme.promptsets.ioi import ioi
from mneme.recipe import Workshop
from mneme.recipes.micro_world import micro_world
from mneme.vocabulary import read_vocabulary

SMALL: dict[str, Any] = {
    "n_layers": 1,
    "n_heads": 4,
    "width": 32,
    "context": 128,
    "tokens_per_step": 256,
    "keep": [0, 3],
}
SHORT = {"copying_steps": 1, "recalling_steps": 1}


def trained(folder: Path, shape: str = "gpt2", seed: int = 0, max_steps: int = 3, **more: Any) -> dict[str, Any]:
    return micro_world(Workshop(folder), seed=seed, shape=shape, max_steps=max_steps, **{**SMALL, **SHORT, **more})


@pytest.mark.parametrize("shape", ["gpt2", "llama", "neox", "lstm", "mamba2"])
def test_a_trained_model_opens_with_its_tokenizer_and_answers_prompts(tmp_path: Path, shape: str) -> None:
    facts = trained(tmp_path, shape)
    assert facts["steps"] == 3
    assert set(BEHAVIORS) <= set(facts["measures"])
    vocabulary = read_vocabulary(tmp_path)
    assert (vocabulary.bos_mode, vocabulary.first_id, vocabulary.context) == ("native", 0, 128)
    lm = load_model(tmp_path)
    assert lm.attention == (shape not in ("lstm", "mamba2"))
    prompts = ioi(vocabulary, seed=0, n_items=3)
    logits = lm.hf(prompts.clean.ids).logits
    assert logits.shape[-1] == vocabulary.size
    assert bool(torch.isfinite(logits).all())


def test_the_same_seed_gives_the_same_weights_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(tmp_path / name, seed=seed)
    first, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == same != other


def test_no_steps_save_the_untrained_model_that_a_training_starts_from(tmp_path: Path) -> None:
    trained(tmp_path / "untrained", max_steps=0)
    trained(tmp_path / "trained")
    start = tmp_path / "trained" / "checkpoints" / "step-0" / "model.safetensors"
    assert start.read_bytes() == (tmp_path / "untrained" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"shape": "rnn"}, "micro_world.shape is 'rnn'"),
        ({"n_heads": 5}, "width 32 is no multiple of n_heads 5"),
        ({"max_steps": -1}, "micro_world.max_steps is -1"),
        ({"copying_steps": 3}, "max_steps is 3, and the first two lessons take 4"),
        ({"keep": "all"}, "micro_world.keep is 'all'"),
        ({"context": 64}, "micro_world.context is 64"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        trained(tmp_path, **wrong)
