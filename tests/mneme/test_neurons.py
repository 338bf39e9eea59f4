"""The neurons of MLPs are what a hook on their last matrix sees."""

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.neurons import most_active, neuron_activations
from tests.architectures import tiny

BATCH = Batch.of(torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0)))
LAST = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h", "llama": "down_proj", "gemma2": "down_proj", "opt": "fc2"}


@pytest.mark.parametrize("name", LAST)
def test_they_are_what_enters_the_last_matrix(name):
    lm = LanguageModel(tiny(name), name, None, "cpu")
    seen, hooks = [], []
    for part in lm.structure.parts:
        inside = {each for each in part.layer.modules() if each not in set(part.attention.modules())}
        (last,) = [each for path, each in part.layer.named_modules() if path.endswith(LAST[name]) and each in inside]
        hooks.append(last.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
    lm.logits(BATCH)
    for hook in hooks:
        hook.remove()
    found = neuron_activations(lm, BATCH)
    assert len(found) == lm.n_layers
    for ours, theirs in zip(found, seen, strict=True):
        torch.testing.assert_close(ours, theirs.reshape(2, 7, -1))


def test_experts_have_no_neurons_of_every_token():
    with pytest.raises(NotApplicable, match="neurons"):
        neuron_activations(LanguageModel(tiny("mixtral"), "mixtral", None, "cpu"), BATCH)


def test_the_most_active_are_the_largest_of_either_sign():
    found = most_active(torch.tensor([[[0.1, -3.0, 2.0, 0.5]]]), 2)
    assert found.tolist() == [[[False, True, True, False]]]
