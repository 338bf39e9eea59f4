"""The logit lens ends at the model's own prediction."""

from __future__ import annotations

import copy

import pytest
import torch

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput
from mneme.lenses import logit_lens
from mneme.model import LanguageModel
from tests.architectures import tiny
from tests.planted import copy_model

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
    assert bool(lens.agrees[:, -1].all())


def test_a_middle_layer_of_the_lens_by_the_formula() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    lens = logit_lens(lm, BATCH, TARGETS)
    state = capture(lm, BATCH, ["residual"])["residual"][1, 2, 5]
    logits = lm.hf.lm_head(lm.hf.transformer.ln_f(state))
    assert float(lens.log_prob[1, 2]) == pytest.approx(float(torch.log_softmax(logits, 0)[8]), abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_a_model_cut_off_after_some_layers_in_float64_predicts_what_the_lens_sees_there(name: str) -> None:
    lens = logit_lens(LanguageModel(tiny(name), name, None, "cpu"), BATCH, TARGETS)
    whole = tiny(name, torch.float64)
    last = whole(input_ids=BATCH.ids).logits[torch.arange(3), BATCH.lengths - 1]
    layers = next(module for module in whole.modules() if isinstance(module, torch.nn.ModuleList))
    for n_kept in range(len(layers)):
        cut = copy.deepcopy(whole)
        kept = next(module for module in cut.modules() if isinstance(module, torch.nn.ModuleList))
        del kept[n_kept:]
        cut.config.num_hidden_layers = n_kept
        early = cut(input_ids=BATCH.ids, use_cache=False).logits[torch.arange(3), BATCH.lengths - 1]
        chances, final = early.log_softmax(1), last.log_softmax(1)
        log_prob = chances[torch.arange(3), TARGETS]
        assert torch.allclose(lens.log_prob[:, n_kept].double(), log_prob, atol=1e-4)
        assert torch.equal(lens.rank[:, n_kept], (chances > log_prob[:, None]).sum(dim=1))
        divergence = (final.exp() * (final - chances)).sum(dim=1)
        assert torch.allclose(lens.kl[:, n_kept].double(), divergence, atol=1e-4)
        assert torch.equal(lens.agrees[:, n_kept], early.argmax(1) == last.argmax(1))


def test_the_planted_model_knows_the_answer_when_its_induction_layer_has_written_it() -> None:
    lm = LanguageModel(copy_model(), "copy", None, "cpu")
    body = torch.stack([torch.randperm(100, generator=torch.Generator().manual_seed(item))[:12] for item in range(4)])
    ids = torch.cat([torch.full((4, 1), 127), body, body[:, :5]], dim=1)
    lens = logit_lens(lm, ids, body[:, 5])
    assert lens.rank.tolist() == [[127, 127, 0]] * 4  # before it wrote, all 128 tokens are equally likely
    assert lens.agrees.tolist() == [[False, False, True]] * 4
    assert lens.log_prob[:, :2].exp() == pytest.approx(1 / 128, abs=1e-6)


def test_of_several_targets_the_best_ranks_and_all_count_together() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    alone = [logit_lens(lm, BATCH, TARGETS), logit_lens(lm, BATCH, TARGETS + 10)]
    both = logit_lens(lm, BATCH, torch.stack([TARGETS, TARGETS + 10, torch.full((3,), -1)], dim=1))
    assert torch.equal(both.rank, torch.minimum(alone[0].rank, alone[1].rank))
    torch.testing.assert_close(both.log_prob.exp(), alone[0].log_prob.exp() + alone[1].log_prob.exp())


def test_layers_added_up_in_another_order_change_what_lies_between_and_not_the_ends() -> None:
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    own = logit_lens(lm, BATCH, TARGETS)
    same = logit_lens(lm, BATCH, TARGETS, order=torch.arange(3).expand(3, 3))
    torch.testing.assert_close(same.log_prob, own.log_prob, atol=1e-5, rtol=1e-5)
    other = logit_lens(lm, BATCH, TARGETS, order=torch.tensor([[1, 2, 0]] * 3))
    assert torch.equal(other.log_prob[:, [0, 3]], own.log_prob[:, [0, 3]])
    states = capture(lm, BATCH, ["residual"])["residual"][torch.arange(3), :, BATCH.lengths - 1]
    first_two = states[:, 0] + (states[:, 2] - states[:, 1]) + (states[:, 3] - states[:, 2])
    logits = lm.hf.lm_head(lm.hf.model.norm(first_two))
    expected = torch.log_softmax(logits, 1)[torch.arange(3), TARGETS]
    torch.testing.assert_close(other.log_prob[:, 2], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", [torch.tensor([3, 40, 5]), torch.tensor([[3], [-1], [5]]), torch.tensor([3, 4])])
def test_targets_outside_the_vocabulary_are_refused(targets: torch.Tensor) -> None:
    with pytest.raises(BadInput, match="one token of the vocabulary per prompt"):
        logit_lens(LanguageModel(tiny("gpt2"), "gpt2", None, "cpu"), BATCH, targets)
