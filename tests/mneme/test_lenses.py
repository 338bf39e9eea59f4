"""The logit lens ends at the model's own prediction."""

from __future__ import annotations

import pytest
import torch

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput
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
