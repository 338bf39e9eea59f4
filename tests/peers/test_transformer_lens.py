"""TransformerLens 4.3, in its own environment, gives the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mneme.ablation import ablate_heads
from mneme.attribution import direct_logit_attribution
from mneme.capturing import capture
from mneme.model import load_model
from mneme.patching import patch_heads
from mneme.readouts import logit_difference
from tests.architectures import VOCABULARY, tiny

PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
PROGRAM = Path(__file__).with_name("transformer_lens_values.py")

pytestmark = pytest.mark.skipif(not PEERS.is_file(), reason="TransformerLens is not installed: `make peers`")


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_logits_patterns_patching_ablation_and_attribution_agree(name: str, tmp_path: Path) -> None:
    tiny(name).save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="1", eos_token="2", pad_token="0").save_pretrained(
        tmp_path
    )
    base, donor = torch.randint(3, VOCABULARY, (2, 3, 9), generator=torch.Generator().manual_seed(0))
    correct, wrong = torch.arange(3) + 3, torch.arange(3) + 9
    arrays = {"base": base, "donor": donor, "correct": correct, "wrong": wrong}
    np.savez(tmp_path / "prompts.npz", **{key: array.numpy() for key, array in arrays.items()})
    command = [str(PEERS), str(PROGRAM), str(tmp_path), str(tmp_path / "values.npz")]
    subprocess.run(command, check=True, capture_output=True, env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"})
    theirs = np.load(tmp_path / "values.npz")
    lm, readout = load_model(tmp_path), logit_difference(correct, wrong)
    ours = {
        "logits": lm.logits(base),
        "patterns": capture(lm, base, ["attention_rows"])["attention_rows"],
        "patched": patch_heads(lm, base, donor, readout).mean(dim=0),
        "ablated": ablate_heads(lm, base, readout).flatten(1),
        "attributed": direct_logit_attribution(lm, base, correct, wrong)["heads"].flatten(1),
    }
    for what, array in ours.items():
        assert array.shape == theirs[what].shape, what
        assert np.abs(array.numpy() - theirs[what]).max() <= 1e-4 * max(1.0, np.abs(theirs[what]).max()), what
