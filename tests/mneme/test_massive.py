"""Massive activations by hand, and what is changed where they stand, against hooks of one's own."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.massive import count_massive, emergence_layer, largest, median_size
from mneme.massive_changes import CHANGES, Changes
from mneme.model import LanguageModel
from tests.architectures import tiny

BATCH = Batch(torch.randint(3, 40, (4, 20), generator=torch.Generator().manual_seed(0)), torch.tensor([20, 20, 17, 20]))


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_one_large_number_in_noise_is_one_massive_activation():
    states = noise(2, 3, 10, 64)
    states[1, 2, 4, 33] = -5000
    padding = torch.ones(2, 10, dtype=torch.int64)
    assert count_massive(states, padding, 100, 1000).tolist() == [[0, 0, 0], [0, 0, 1]]
    top = largest(states, padding, 3)
    assert (top.values[1, 2, 0], top.positions[1, 2, 0], top.dimensions[1, 2, 0]) == (5000, 4, 33)
    assert bool((top.values.diff(dim=-1) <= 0).all())
    assert float(median_size(states, padding)[0, 0]) == pytest.approx(0.6745, abs=0.08)


def test_a_large_number_among_large_ones_is_not_massive():
    states = 100 * noise(1, 1, 10, 64)
    states[0, 0, 0, 0] = 5000
    padding = torch.ones(1, 10, dtype=torch.int64)
    assert int(count_massive(states, padding, 100, 1000)) == 0
    assert int(count_massive(states, padding, 100, 50)) == 1


def test_the_ratio_rule_alone_sees_a_small_stream():
    states = noise(1, 1, 10, 64) / 1000
    states[0, 0, 0, 0] = 5
    padding = torch.ones(1, 10, dtype=torch.int64)
    assert int(count_massive(states, padding, 100, 1000)) == 0
    assert int(count_massive(states, padding, 0, 1000)) == 1


def test_padding_holds_nothing_massive():
    states = noise(1, 1, 10, 64)
    states[0, 0, 9, 0] = torch.inf
    padding = torch.tensor([[1] * 9 + [0]])
    assert int(count_massive(states, padding, 100, 1000)) == 0
    assert int(largest(states, padding, 1).positions) < 9


def test_a_stream_that_overflowed_is_refused():
    states = noise(1, 1, 4, 8)
    states[0, 0, 0, 0] = torch.inf
    with pytest.raises(BadInput, match="bfloat16 or float32"):
        largest(states, torch.ones(1, 4, dtype=torch.int64), 1)


def test_they_emerge_where_the_largest_has_risen_most_and_a_layer_still_reads_it():
    assert emergence_layer(torch.tensor([1.0, 2.0, 90.0, 95.0, 900.0])) == 2
    assert emergence_layer(torch.tensor([1.0, 2.0, 900.0])) == 1


def loss_with(lm, layer, change):
    """Loss of each prompt when a hook on a layer's input applies `change`: the slow and obvious road."""

    def enter(_, args, options):
        states = (args[0] if args else options["hidden_states"]).clone()
        change(states)
        return ((states, *args[1:]), options) if args else (args, options | {"hidden_states": states})

    hook = lm.structure.parts[layer].layer.register_forward_pre_hook(enter, with_kwargs=True)
    log_probs = torch.log_softmax(lm.logits(BATCH).float(), dim=-1)
    hook.remove()
    losses = []
    for item, length in enumerate(BATCH.lengths.tolist()):
        rows = torch.arange(length - 1)
        losses.append(-log_probs[item, rows, BATCH.ids[item, 1:length]].mean())
    return torch.stack(losses)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_the_largest_activations_set_to_zero_and_to_their_mean_are_what_a_hook_gives(name):
    lm = LanguageModel(tiny(name), name, None, "cpu")
    found = Changes.of(lm, BATCH, 2).losses(2, [1, 2], seed=0)
    streams = []
    clean = loss_with(lm, 2, lambda states: streams.append(states.clone()))
    states, is_token = streams[0], BATCH.padding.bool()
    means = (states * is_token[..., None]).sum(dim=0) / is_token.sum(dim=0)[:, None]
    sizes = states.abs().masked_fill(~is_token[..., None], 0).flatten(1)
    for kind, value_of in (("zero", torch.zeros_like(means)), ("mean", means)):
        for column, k in enumerate((1, 2)):

            def change(states, k=k, value_of=value_of):
                for item in range(len(states)):
                    for place in sizes[item].topk(k).indices.tolist():
                        at = divmod(place, states.shape[2])
                        states[item][at] = value_of[at]

            expected = loss_with(lm, 2, change) - clean
            measured = found[:, CHANGES.index(f"massive_set_to_{kind}"), column]
            torch.testing.assert_close(measured, expected, atol=2e-5, rtol=1e-3)


def test_the_controls_change_as_many_other_numbers():
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    changes = Changes.of(lm, BATCH, 1)
    first, again, other = (changes.losses(4, [4], seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    random = CHANGES.index("random_set_to_zero")
    assert not torch.equal(first[:, random], other[:, random])
    assert torch.equal(first[:, 0], other[:, 0])


def test_one_layer_leaves_no_place_for_a_change():
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=4, n_positions=64)
    lm = LanguageModel(GPT2LMHeadModel(config).eval(), "one", None, "cpu")
    with pytest.raises(NotApplicable, match="one layer"):
        Changes.of(lm, BATCH, None)
