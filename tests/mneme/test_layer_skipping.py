"""Void layers by hand, and a model whose tokens skip layers against one whose layers were taken out."""

import copy

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.layer_skipping import (
    check_depth,
    hidden_with_skips,
    norm_changes,
    relative_changes,
    turns,
    void_layers_of,
)
from mneme.model import LanguageModel
from tests.architectures import tiny

BATCH = Batch(torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.tensor([9, 6, 8]))


def test_changes_below_the_running_threshold_are_void():
    changes = torch.tensor([10.0, 2.0, 1.0, 8.0])
    assert void_layers_of(changes, 0.8).tolist() == [False, True, True, False]


def test_the_threshold_grows_with_alpha():
    changes = torch.tensor([10.0, 2.0, 1.0, 8.0])
    assert void_layers_of(changes, 0.1).tolist() == [False, False, False, False]
    assert void_layers_of(changes, 1).tolist() == [False, True, True, True]


@pytest.mark.parametrize("alpha", [0, -0.5, 1.5, True, "0.8"])
def test_a_threshold_that_is_no_share_is_refused(alpha):
    with pytest.raises(BadInput, match="alpha"):
        void_layers_of(torch.ones(4), alpha)


def test_an_identity_layer_is_void_and_a_rotation_too_but_not_by_its_relative_change():
    states = torch.tensor([[[[3.0, 4.0]], [[6.0, 8.0]], [[6.0, 8.0]], [[8.0, -6.0]]]])
    assert norm_changes(states).tolist() == [[[5, 0, 0]]]
    assert void_layers_of(norm_changes(states), 0.8).tolist() == [[[False, True, True]]]
    torch.testing.assert_close(relative_changes(states), torch.tensor([[[1.0, 0.0, 2**0.5]]]))
    torch.testing.assert_close(turns(states), torch.tensor([[[0.0, 0.0, 1.0]]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_a_layer_that_every_token_skips_is_a_layer_taken_out(name):
    lm = LanguageModel(tiny(name), name, None, "cpu")
    skipped = torch.zeros(3, 9, lm.n_layers, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(hidden_with_skips(lm, BATCH, skipped), lm.backbone.hidden(BATCH.ids))
        skipped[:, :, 1] = True
        found = hidden_with_skips(lm, BATCH, skipped)
        without = copy.deepcopy(lm.hf)
        layers = next(each for each in without.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == 3)
        layers[1].forward = passing(lm.structure.parts[1].layer_returns)
        expected = without.base_model(BATCH.ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def passing(n_values):
    return lambda hidden, *_, **__: hidden if n_values is None else (hidden, *[None] * (n_values - 1))


def test_a_token_that_skips_changes_no_token_before_it():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    skipped = torch.zeros(3, 9, lm.n_layers, dtype=torch.bool)
    skipped[:, 5, 1] = True
    with torch.no_grad():
        plain, found = lm.backbone.hidden(BATCH.ids), hidden_with_skips(lm, BATCH, skipped)
    torch.testing.assert_close(found[:, :5], plain[:, :5])
    assert bool(((found - plain)[:, 5:].abs().amax(dim=2) > 1e-6).all())


def test_three_layers_are_too_few_to_compare():
    with pytest.raises(NotApplicable, match="4 at least"):
        check_depth(LanguageModel(tiny("gpt2"), "gpt2", None, "cpu"), "void_layers")
