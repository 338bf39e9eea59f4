"""TransformerLens 4.3, in its own environment, gives the same numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mneme.ablation import ablate_heads
from mneme.attribution import direct_logit_attribution
from mneme.attribution_patching import attribution_patching
from mneme.capturing import capture
from mneme.circuit_faithfulness import faithfulness
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import edge_scores
from mneme.model import load_model
from mneme.patching import patch_heads
from mneme.readouts import logit_difference
from tests.architectures import VOCABULARY, tiny

PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
PROGRAM = Path(__file__).with_name("transformer_lens_values.py")
EDGES = Path(__file__).with_name("transformer_lens_edges.py")

pytestmark = pytest.mark.skipif(not PEERS.is_file(), reason="TransformerLens is not installed: `make peers`")


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_logits_patterns_patching_ablation_and_attribution_agree(name: str, tmp_path: Path) -> None:
    base, donor = torch.randint(3, VOCABULARY, (2, 3, 9), generator=torch.Generator().manual_seed(0))
    correct, wrong = torch.arange(3) + 3, torch.arange(3) + 9
    arrays = {"base": base, "donor": donor, "correct": correct, "wrong": wrong}
    theirs = values_of(PROGRAM, tiny(name), arrays, tmp_path)
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


def values_of(
    program: Path, hf: PreTrainedModel, arrays: Mapping[str, torch.Tensor], tmp_path: Path
) -> dict[str, np.ndarray]:
    """What a program of the peers' environment makes of a model, saved with a tokenizer, and of prompts."""
    hf.save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="1", eos_token="2", pad_token="0").save_pretrained(
        tmp_path
    )
    np.savez(tmp_path / "prompts.npz", **{key: array.numpy() for key, array in arrays.items()})
    command = [str(PEERS), str(program), str(tmp_path), str(tmp_path / "values.npz")]
    root = str(Path(__file__).parents[2])
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": root}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return dict(np.load(tmp_path / "values.npz"))


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama"])
def test_edge_attribution_at_every_position_heads_and_faithfulness_agree(name: str, tmp_path: Path) -> None:
    """Their gradients are taken at the corrupt prompt and point to the clean one, so ours run with the pair turned.

    They refuse shared keys and values, norms after attention, scaled writes and padded prompts; so Llama has none here.
    """
    hf = tiny(name, **({"num_key_value_heads": 4} if name == "llama" else {}), num_hidden_layers=2)
    clean, corrupt = torch.randint(3, VOCABULARY, (2, 2, 5), generator=torch.Generator().manual_seed(0))
    correct, wrong = torch.arange(2) + 3, torch.arange(2) + 9
    graph = EdgeGraph.sized(2, 4, is_parallel=name == "gpt_neox")
    kept = (torch.rand(graph.legal.shape, generator=torch.Generator().manual_seed(1)) < 0.6) & graph.legal
    arrays = {"base": clean, "donor": corrupt, "correct": correct, "wrong": wrong, "kept": kept}
    theirs = values_of(EDGES, hf, arrays, tmp_path)
    lm, readout = load_model(tmp_path), logit_difference(correct, wrong)
    scores = edge_scores(lm, corrupt, clean, readout, positions="each")
    assert scores.graph == graph
    assert scores.by_position is not None
    found = faithfulness(lm, clean, corrupt, readout, [Circuit(graph, kept, int(kept.sum()))])
    ours = {
        "edges": scores.by_position.nan_to_num(0.0),
        "heads": attribution_patching(lm, corrupt, clean, readout).mean(dim=0),
        "recovered": (found.items[:, 0] - found.empty) / (found.whole - found.empty),
    }
    theirs |= {what: theirs[what].mean(axis=0) for what in ("edges", "heads")}
    for what, array in ours.items():
        assert array.shape == theirs[what].shape, what
        assert np.abs(array.numpy() - theirs[what]).max() <= 1e-4 * max(1.0, np.abs(theirs[what]).max()), what
