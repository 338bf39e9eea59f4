"""The logit lens ends at the model's own prediction, and copying scores see what is planted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput, NotApplicable
from mneme.head_circuits import copying_scores
from mneme.lenses import logit_lens
from mneme.model import LanguageModel
from tests.architectures import tiny

BATCH = Batch(torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.tensor([9, 6, 8]))
TARGETS = torch.tensor([3, 8, 5])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "cohere", "opt"])
def test_the_last_layer_of_the_lens_is_the_model_s_own_prediction(name: str) -> None:
    lm = LanguageModel(tiny(name), name, None, "cpu")
    lens = logit_lens(lm, BATCH, TARGETS)
    last = lm.logits(BATCH)[torch.arange(3), BATCH.lengths - 1]
    chances = torch.log_softmax(last, dim=1)
    assert torch.allclose(lens.log_prob[:, -1], chances[torch.arange(3), TARGETS], atol=1e-4)
    better = (last > last.gather(1, TARGETS[:, None])).sum(dim=1)
    assert torch.equal(lens.rank[:, -1], better)
    assert float(lens.kl[:, -1].abs().max()) < 1e-6
    assert bool((lens.kl[:, :-1] > 0).all())


def test_a_middle_layer_of_the_lens_by_the_formula() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    lens = logit_lens(lm, BATCH, TARGETS)
    state = capture(lm, BATCH, ["residual"])["residual"][1, 2, 5]
    logits = lm.hf.lm_head(lm.hf.transformer.ln_f(state))
    assert float(lens.log_prob[1, 2]) == pytest.approx(float(torch.log_softmax(logits, 0)[8]), abs=1e-5)


def test_targets_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(BadInput, match="one token of the vocabulary per prompt"):
        logit_lens(LanguageModel(tiny("gpt2"), "gpt2", None, "cpu"), BATCH, torch.tensor([3, 40, 5]))


def planted(matrix: Tensor) -> LanguageModel:
    """GPT-2 without norms whose embedding is orthogonal and whose head (1, 2) has the OV matrix `matrix` [4 4]."""
    hf = tiny("gpt2", torch.float64, vocab_size=17, tie_word_embeddings=False)
    transformer = hf.transformer
    for block in transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    transformer.ln_f = nn.Identity()
    transformer.wte.weight.zero_()
    transformer.wte.weight[:16] = torch.eye(16, dtype=torch.float64)
    hf.lm_head.weight = nn.Parameter(torch.zeros(17, 16, dtype=torch.float64), requires_grad=False)
    hf.lm_head.weight[:16] = torch.eye(16, dtype=torch.float64)
    attention = transformer.h[1].attn
    attention.c_attn.weight[:, 32 + 8 : 32 + 12] = 0
    attention.c_attn.weight[:4, 32 + 8 : 32 + 12] = matrix
    attention.c_proj.weight[8:12] = 0
    attention.c_proj.weight[8:12, :4] = torch.eye(4, dtype=torch.float64)
    return LanguageModel(hf, "planted", None, "cpu")


ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.eye(4, dtype=torch.float64), 1.0),
        (-torch.eye(4, dtype=torch.float64), -1.0),
        (torch.block_diag(ROTATION, ROTATION), 0.0),
        (torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)), 0.5),
    ],
    ids=["identity", "negative", "rotations", "three of four"],
)
def test_eigenvalue_copying_of_planted_matrices(matrix: Tensor, expected: float) -> None:
    scores = copying_scores(planted(matrix), torch.arange(4))
    assert float(scores.eigenvalue[1, 2]) == pytest.approx(expected, abs=0.15)  # centring moves it a little


def test_a_head_that_copies_is_among_its_own_top_five() -> None:
    copying = copying_scores(planted(torch.eye(4, dtype=torch.float64)), torch.arange(4))
    negative = copying_scores(planted(-torch.eye(4, dtype=torch.float64)), torch.arange(4))
    assert float(copying.top5[1, 2]) == 1.0
    assert float(negative.top5[1, 2]) == 0.0
    assert float(copying.z[1, 2]) > 3
    assert float(negative.z[1, 2]) < -3


def test_small_and_whole_matrices_have_the_same_eigenvalue_score() -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    found = copying_scores(lm, torch.arange(40)).eigenvalue
    layer = lm.hf.model.layers[1]
    values = (layer.input_layernorm.weight[:, None] * layer.self_attn.v_proj.weight.T)[:, 4:8]  # kv head 1
    writes = layer.self_attn.o_proj.weight.T[12:16]  # head 3, of kv head 1
    unembed = lm.hf.lm_head.weight * lm.hf.model.norm.weight
    whole = lm.hf.model.embed_tokens.weight @ values @ writes @ (unembed - unembed.mean(dim=0)).T
    spectrum = torch.linalg.eigvals(whole)
    assert float(found[1, 3]) == pytest.approx(float(spectrum.real.sum() / spectrum.abs().sum()), abs=1e-4)


@pytest.mark.parametrize(("name", "sentence"), [("gemma2", "norms what its heads write"), ("bloom", "only behavior")])
def test_models_without_fixed_circuits_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(NotApplicable, match=sentence):
        copying_scores(LanguageModel(tiny(name), name, None, "cpu"), torch.arange(4))
