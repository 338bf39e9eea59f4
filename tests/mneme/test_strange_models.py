"""Model folders of strangers: what lies beside settings and weights is neither run nor unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.model import load_model
from mneme.vocabulary import read_vocabulary
from tests.small_tokenizers import save_tokenizer

SCRIPTS = ("own.py", "modeling_gpt2.py", "configuration_gpt2.py", "tokenization_own.py", "__init__.py", "generate.py")
PICKLES = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "adapter_model.bin")


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.made,)


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The file that code or a pickle of the folder makes."""
    return tmp_path / "made"


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """A good model whose settings name code of its own, with scripts and pickles beside it, each of which tells."""
    folder = tmp_path / "model"
    save_tokenizer(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config.from_pretrained(folder, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    change(folder / "config.json", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Slow", "own.Fast"]})
    for name in SCRIPTS:
        (folder / name).write_text(f"import pathlib\npathlib.Path({str(made)!r}).touch()\n")
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Payload(made)))
    return folder


def test_the_pickles_and_scripts_of_these_tests_tell_when_they_are_read(folder: Path, made: Path) -> None:
    for name in PICKLES:
        pickle.loads((folder / name).read_bytes())
        made.unlink()
    for name in SCRIPTS:
        exec((folder / name).read_text(), {})
        made.unlink()


def test_nothing_beside_settings_and_weights_runs(folder: Path, made: Path) -> None:
    lm = load_model(folder)
    assert lm.logits(torch.tensor([[3, 4]])).shape[:2] == (1, 2)
    assert lm.tokenizer.decode(lm.tokenizer("the water")["input_ids"]).strip() == "the water"
    assert read_vocabulary(folder).tokenizer is not None
    assert not made.exists()
