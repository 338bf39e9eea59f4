import hashlib

import pytest
import torch

from mneme.errors import BadInput
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptsets.repeated_tokens import repeated_tokens
from mneme.recipe import Workshop
from mneme.recipes.induction_lm import IGNORED, _Data, _Repeats, induction_lm
from mneme.training import batch_generator
from mneme.vocabulary import read_vocabulary

TINY = {"n_heads": 2, "width": 16, "vocabulary": 30, "length": 24, "min_period": 5, "max_period": 12, "batch_size": 4}


def sha(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    hashes = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        induction_lm(Workshop(tmp_path / place), seed=seed, max_steps=4, **TINY)
        hashes.append(sha(tmp_path / place))
    assert hashes[0] == hashes[1] != hashes[2]


def test_training_does_not_touch_the_random_state_of_the_caller(tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    induction_lm(Workshop(tmp_path), seed=3, max_steps=2, **TINY)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_tells_where_it_stands_and_what_it_did(tmp_path):
    told = []
    facts = induction_lm(Workshop(tmp_path, progress=lambda *state: told.append(state)), seed=0, max_steps=30, **TINY)
    assert [done for done, _, _ in told] == [25, 30]
    assert "copy accuracy" in told[0][2]
    assert facts["steps"] == 30
    assert facts["tokens"] == 30 * 4 * 25
    assert 0 <= facts["copy_accuracy"] <= 1
    assert facts["final_loss_nats"] > 0


def test_the_saved_model_has_a_first_token_and_no_room_beyond_what_it_was_trained_on(tmp_path):
    induction_lm(Workshop(tmp_path), seed=0, max_steps=1, **TINY)
    vocabulary = read_vocabulary(tmp_path, "native")
    assert vocabulary.first_id == 30
    assert vocabulary.context == 25
    assert vocabulary.special_ids == {30}
    with pytest.raises(BadInput, match="context"):
        repeated_tokens(vocabulary, seed=0, period=13)


def test_only_tokens_that_can_be_known_are_learnt():
    data = _Data(30, 24, 5, 12)
    ids, targets = data.draw(50, torch.Generator().manual_seed(0))
    periods = set()
    for row, wanted in zip(ids.tolist(), targets.tolist(), strict=True):
        known = [place for place, target in enumerate(wanted) if target != IGNORED]
        for place in known:
            token = row[place]
            earlier = [each for each in range(1, place) if row[each] == token]
            assert wanted[place] == row[place + 1] == row[earlier[-1] + 1]
        periods.add(known[0] - 1)
        assert known == list(range(known[0], 24))
    assert periods == set(range(5, 13))


def test_a_share_of_the_rows_is_drawn_from_a_few_that_stay_the_same():
    data, repeats = _Data(30, 24, 5, 12), _Repeats(3, 0.75)
    steps = [repeats.draw(data, 8, seed=1, step=step) for step in range(1, 6)]
    kept = {tuple(row) for ids, _ in steps for row in ids[2:].tolist()}
    fresh = {tuple(row) for ids, _ in steps for row in ids[:2].tolist()}
    assert len(kept) == 3
    assert len(fresh) == 10
    assert not kept & fresh
    assert all(ids.shape == targets.shape == (8, 25) for ids, targets in steps)


def test_without_repeated_rows_a_step_is_what_it_was():
    data = _Data(30, 24, 5, 12)
    ids, targets = _Repeats(0, 0.9).draw(data, 8, seed=1, step=4)
    expected = data.draw(8, batch_generator(1, 4))
    assert torch.equal(ids, expected[0])
    assert torch.equal(targets, expected[1])


def test_what_is_kept_does_not_change_what_is_learnt(tmp_path):
    for place, keep in (("a", []), ("b", [0, 3, 7]), ("c", "log_spaced")):
        induction_lm(Workshop(tmp_path / place), seed=3, max_steps=8, keep=keep, **TINY)
    assert sha(tmp_path / "a") == sha(tmp_path / "b") == sha(tmp_path / "c")
    assert sorted(each.name for each in (tmp_path / "b" / "checkpoints").iterdir()) == ["step-0", "step-3", "step-7"]
    assert len(list((tmp_path / "c" / "checkpoints").iterdir())) == 5
    assert sha(tmp_path / "c" / "checkpoints" / "step-8") == sha(tmp_path / "c")


def test_the_kept_steps_are_models_that_load(tmp_path):
    induction_lm(Workshop(tmp_path), seed=3, max_steps=2, keep=[0, 1], n_layers=1, **TINY)
    for place in (tmp_path, tmp_path / "checkpoints" / "step-0", tmp_path / "checkpoints" / "step-1"):
        assert load_model(place).n_layers == 1


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"width": 15}, "no multiple"),
        ({"n_layers": 0}, "n_layers"),
        ({"keep": "often"}, "keep"),
        ({"max_period": 20}, "max_period"),
        ({"min_period": 1}, "min_period"),
        ({"max_steps": 0}, "max_steps"),
        ({"stop_at": 1.5}, "stop_at"),
        ({"n_repeated": -1}, "n_repeated"),
        ({"repeated_share": 1.5}, "repeated_share"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(tmp_path, parameters, words):
    with pytest.raises(BadInput, match=words):
        induction_lm(Workshop(tmp_path), seed=0, **{**TINY, **parameters})


@pytest.mark.slow
def test_the_trained_model_copies_with_previous_token_heads_under_induction_heads(tmp_path):
    facts = induction_lm(Workshop(tmp_path), seed=0)
    assert facts["copy_accuracy"] >= 0.99
    lm, vocabulary = load_model(tmp_path), read_vocabulary(tmp_path, "native")
    prompts = repeated_tokens(vocabulary, seed=1, n_items=32, period=25)
    previous, induction, copied = (
        measure(probes.get(name), {}, prompts, lm=lm) for name in ("previous_token", "induction", "copy_accuracy")
    )
    previous, induction = previous["scores"].mean(dim=0), induction["scores"].mean(dim=0)
    assert float(previous[0].max()) > 0.4
    assert float(previous[1].max()) < 0.2
    assert float(induction[1].max()) > 0.8
    assert float(induction[0].max()) < 0.1
    assert float(copied["values"].mean()) > 0.98
    fresh = repeated_tokens(vocabulary, seed=1, n_items=32, period=25, copy="fresh")
    assert float(measure(probes.get("induction"), {}, fresh, lm=lm)["scores"].mean(dim=0).max()) < 0.1
