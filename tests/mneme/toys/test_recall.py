"""Rows of pairs and questions, built by hand and read by a dictionary; how many numbers memories hold."""

import pytest
import torch

from mneme.errors import BadInput
from mneme.toys.memories import MemoryShape, hidden_states, memory_model, state_numbers
from mneme.toys.recall import BLANK, RecallTask, checked_sizes, context_of, queries_of

TASK = RecallTask(n_keys=12, n_values=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_dictionary(task, row, n_pairs):
    """The value of each key asked, read as a person would: pairs into a dictionary, then the questions one by one."""
    told = dict(zip(row[1 : 2 * n_pairs : 2], row[2 : 2 * n_pairs + 1 : 2], strict=True))
    return [told[key] - task.first_value for key in row[2 * n_pairs + 1 :: 2]]


@pytest.mark.parametrize("n_pairs", [2, 5, 12])
def test_every_key_is_asked_once_and_a_dictionary_knows_its_value(n_pairs):
    ids, answers = TASK.draw(50, n_pairs, generator())
    assert ids.shape == (50, context_of(n_pairs))
    assert (ids[:, 0] == TASK.first_id).all()
    for row, known in zip(ids.tolist(), answers.tolist(), strict=True):
        keys, asked = row[1 : 2 * n_pairs : 2], row[2 * n_pairs + 1 :: 2]
        assert sorted(keys) == sorted(asked)
        assert len(set(keys)) == n_pairs
        assert all(1 <= key < TASK.first_value for key in keys)
        assert row[2 * n_pairs + 2 :: 2] == [BLANK] * (n_pairs - 1)
        assert by_dictionary(TASK, row, n_pairs) == known
        assert torch.tensor(row)[queries_of(n_pairs)].tolist() == asked


def test_keys_values_and_questions_come_in_no_order():
    ids, answers = TASK.draw(4000, 4, generator())
    assert torch.bincount(answers.flatten(), minlength=4).div(16000).sub(0.25).abs().max() < 0.02
    same_place = (ids[:, 1] == ids[:, 9]).double().mean()
    assert same_place == pytest.approx(0.25, abs=0.03)
    assert torch.bincount(ids[:, 1], minlength=13)[1:].div(4000).sub(1 / 12).abs().max() < 0.02


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1)])
def test_a_task_needs_two_keys_and_two_values(sizes):
    with pytest.raises(BadInput, match="n_"):
        RecallTask(*sizes)


@pytest.mark.parametrize("n_pairs", [[], 4, [1, 2], [4, 4], [4, 100], ["4"]])
def test_numbers_of_pairs_are_a_list_of_different_ones(n_pairs):
    with pytest.raises(BadInput, match="pairs"):
        checked_sizes("pairs", n_pairs, 64)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        (MemoryShape("lstm", 2, 16, 1), 2 * (16 + 16)),
        (MemoryShape("attention", 2, 64, 1), 2 * 10 * (64 + 64)),
        (MemoryShape("mamba2", 1, 32, 4), 64 * 4 + 3 * (64 + 4 + 4)),
    ],
)
def test_a_memory_holds_the_numbers_that_its_own_cache_holds(shape, numbers):
    assert state_numbers(shape, 10) == numbers
    torch.manual_seed(0)
    model = memory_model(shape, 20, 32, 19).eval()
    ids = torch.randint(19, (1, 10), generator=generator())
    if shape.shape == "lstm":
        _, state = model.lstm.layers(model.lstm.embeddings(ids))
        assert sum(each.numel() for each in state) == numbers
        return
    answer = model(ids, use_cache=True)
    if shape.shape == "attention":
        layers = answer.past_key_values.layers
        assert sum(layer.keys.numel() + layer.values.numel() for layer in layers) == numbers
        return
    (layer,) = answer.cache_params.layers
    columns = layer.conv_states[0]
    assert columns.shape[-1] == 4  # the oldest falls out with the next token, and has no bearing on what comes
    assert layer.recurrent_states[0].numel() + columns[..., 1:].numel() == numbers


@pytest.mark.parametrize("shape", ["attention", "lstm", "mamba2"])
def test_a_memory_reads_from_left_to_right_and_its_states_give_its_logits(shape):
    torch.manual_seed(0)
    model = memory_model(MemoryShape(shape, 2, 32, 4), 20, 32, 19).eval()
    ids = torch.randint(19, (2, 20), generator=generator())
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.allclose(model.lm_head(hidden_states(model, ids)), logits, atol=1e-5)
        assert torch.allclose(model(ids[:, :11]).logits, logits[:, :11], atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("gru", 1, 32, 1), "shape"),
        (("lstm", 0, 32, 1), "n_layers"),
        (("lstm", 1, 0, 1), "width"),
        (("mamba2", 1, 32, 0), "state_width"),
        (("attention", 1, 40, 1), "no multiple of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, words):
    with pytest.raises(BadInput, match=words):
        MemoryShape(*sizes)
