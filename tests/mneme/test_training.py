import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mneme.errors import BadInput
from mneme.recipe import Workshop
from mneme.training import (
    Measure,
    Schedule,
    batch_generator,
    measured_mean,
    train_model,
)

STEPS = 60
N_OPTIMIZERS = 2


class Regression(nn.Module):
    """A small network with dropout, saved as recipes save theirs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))

    def save_pretrained(self, folder):
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


def train(workshop, *, seed=1, rate=0.02, spoil=None, slow=0.0, stop=None, check=None, factor=None, **schedule):
    """Fit a sum of sines with Muon on the matrices and AdamW on the rest."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Regression()
        matrices = [each for each in model.parameters() if each.ndim == 2]
        vectors = [each for each in model.parameters() if each.ndim == 1]
        optimizers = [torch.optim.Muon(matrices, lr=rate), torch.optim.AdamW(vectors, lr=rate)]

        def loss(step):
            time.sleep(slow)
            inputs = torch.randn(16, 4, generator=batch_generator(seed, step))
            error = (model.layers(inputs)[:, 0] - inputs.sin().sum(dim=1)).square().mean()
            return error if spoil is None else spoil(step, error)

        return train_model(
            workshop,
            model,
            optimizers,
            loss,
            schedule=Schedule(**{"max_steps": STEPS, "save_every": 7, "check_every": 10, **schedule}),
            spec={"seed": seed, "rate": rate},
            check=check,
            stop=stop,
            factor=factor,
        )


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(one, two):
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class Killed(Exception):
    pass


def stop_at(step):
    def spoil(now, error):
        if now == step:
            raise Killed
        return error

    return spoil


@pytest.mark.parametrize("at", [3, 8, 29, 60])
def test_training_broken_off_at_any_step_ends_in_the_same_weights_as_undisturbed_training(tmp_path, at):
    train(Workshop(tmp_path / "whole"), factor=lambda step: [1 - step / 100] * N_OPTIMIZERS)
    broken = Workshop(tmp_path / "broken", tmp_path / "state")
    with pytest.raises(Killed):
        train(broken, spoil=stop_at(at), factor=lambda step: [1 - step / 100] * N_OPTIMIZERS)
    seen = []
    train(
        broken,
        spoil=lambda step, error: seen.append(step) or error,
        factor=lambda step: [1 - step / 100] * N_OPTIMIZERS,
    )
    assert seen[0] == (at - 1) // 7 * 7 + 1  # from the last saved state on
    assert equal(tmp_path / "whole", tmp_path / "broken")


def test_a_process_killed_at_a_random_moment_and_started_again_ends_in_the_same_weights(tmp_path):
    program = "import sys; from pathlib import Path; from mneme.recipe import Workshop; from test_training import train"
    program += "; train(Workshop(Path(sys.argv[1]), Path(sys.argv[2])), slow=0.01, save_every=1, keep=(0, 5, 50))"
    command = [sys.executable, "-c", program, str(tmp_path / "killed"), str(tmp_path / "state")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    while process.poll() is None and not (tmp_path / "state" / "training.json").exists():
        time.sleep(0.01)
    time.sleep(int.from_bytes(os.urandom(1)) / 1000)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    train(Workshop(tmp_path / "killed", tmp_path / "state"), save_every=1, keep=(0, 5, 50))
    train(Workshop(tmp_path / "whole"), keep=(0, 5, 50))
    for place in ("", "checkpoints/step-0", "checkpoints/step-5", "checkpoints/step-50"):
        assert equal(tmp_path / "killed" / place, tmp_path / "whole" / place)


def test_nothing_in_the_state_is_a_pickle(tmp_path):
    with pytest.raises(Killed):
        train(Workshop(tmp_path / "a", tmp_path / "state"), spoil=stop_at(20), keep=(0, 1))
    names = sorted(path.name for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert names == ["model.safetensors", "model.safetensors", "step-14.safetensors", "training.json"]


def test_a_state_of_another_spec_is_refused_and_left_alone(tmp_path):
    workshop = Workshop(tmp_path / "a", tmp_path / "state")
    with pytest.raises(Killed):
        train(workshop, spoil=stop_at(20))
    before = (tmp_path / "state" / "training.json").read_bytes()
    with pytest.raises(
        BadInput, match=r"state holds unfinished training of another model \(its rate differs\): remove"
    ):
        train(workshop, rate=0.5)
    assert (tmp_path / "state" / "training.json").read_bytes() == before


@pytest.mark.parametrize("harm", ["altered weights", "cut notes", "lost weights", "lost kept step"])
def test_a_damaged_state_counts_as_none(tmp_path, harm):
    workshop = Workshop(tmp_path / "a", tmp_path / "state")
    with pytest.raises(Killed):
        train(workshop, spoil=stop_at(20), keep=(5,))
    saved, notes = tmp_path / "state" / "step-14.safetensors", tmp_path / "state" / "training.json"
    if harm == "altered weights":
        saved.write_bytes(saved.read_bytes()[:-1] + b"x")
    elif harm == "cut notes":
        notes.write_text(notes.read_text()[:50])
    elif harm == "lost weights":
        saved.unlink()
    else:
        (tmp_path / "state" / "checkpoints" / "step-5").rename(tmp_path / "elsewhere")
    seen = []
    train(workshop, spoil=lambda step, error: seen.append(step) or error, keep=(5,))
    assert seen[0] == 1
    train(Workshop(tmp_path / "whole"), keep=(5,))
    assert equal(tmp_path / "a", tmp_path / "whole")
    assert equal(tmp_path / "a/checkpoints/step-5", tmp_path / "whole/checkpoints/step-5")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_training_and_the_last_good_state_stays(tmp_path, bad):
    workshop = Workshop(tmp_path / "a", tmp_path / "state")
    with pytest.raises(BadInput, match=r"diverged at step 20 .*lower the learning rate"):
        train(workshop, spoil=lambda step, error: error * bad if step == 20 else error, keep=(0, 18))
    assert json.loads((tmp_path / "state" / "training.json").read_text())["step"] == 14
    assert all(each.isfinite().all() for each in weights(tmp_path / "state" / "checkpoints" / "step-18").values())
    train(workshop, keep=(0, 18))
    train(Workshop(tmp_path / "whole"))
    assert equal(tmp_path / "a", tmp_path / "whole")


def test_a_gradient_that_is_no_number_stops_training(tmp_path):
    def spoil(step, error):
        return (error * 0).sqrt() + error.detach() if step == 9 else error

    with pytest.raises(BadInput, match=r"diverged at step 9 .*norm nan"):
        train(Workshop(tmp_path), spoil=spoil)


def test_a_loss_far_above_its_median_stops_training_after_twenty_steps_and_is_never_saved(tmp_path):
    with pytest.raises(BadInput, match="diverged at step 50"):
        train(
            Workshop(tmp_path / "a", tmp_path / "state"),
            spoil=lambda step, error: error * 0 + (100.0 if step > 30 else 1.0),
        )
    assert json.loads((tmp_path / "state" / "training.json").read_text())["step"] == 28


def test_nineteen_strange_losses_are_borne(tmp_path):
    trained = train(Workshop(tmp_path), spoil=lambda step, error: error * 0 + (100.0 if 30 < step < 50 else 1.0))
    assert trained.steps == STEPS


def test_a_tiny_loss_that_jumps_is_no_divergence(tmp_path):
    trained = train(Workshop(tmp_path), spoil=lambda step, error: error * 0 + (0.02 if step > 30 else 0.001))
    assert trained.steps == STEPS


def test_a_loss_that_rises_because_the_data_change_is_no_divergence(tmp_path):
    trained = train(
        Workshop(tmp_path), spoil=lambda step, error: error * 0 + (100.0 if step > 30 else 1.0), changes=(30,)
    )
    assert trained.steps == STEPS


def test_it_learns_and_says_how_it_ended(tmp_path):
    told, logged = [], []
    trained = train(
        Workshop(tmp_path, progress=lambda *each: told.append(each), log=lambda *each: logged.append(each)),
        max_steps=300,
        check_every=100,
        tokens_per_step=16,
        keep=(0, 40),
        check=lambda step: {"half": 0.5, "far": Measure(step * 2.0, "steps", 1.0, 3.0, 16)},
    )
    assert [done for done, _, _ in told] == [0, 40, 100, 200, 300]
    assert told[0][2] == "half 0.500, far 0.000"
    assert [step for step, _ in logged] == [0, 40, 100, 200, 300]
    assert set(logged[0][1]) == {"half", "far"}
    assert set(logged[1][1]) == {"half", "far", "loss", "tokens_per_second"}
    assert logged[-1][1]["loss"] == trained.loss < 0.3 < logged[1][1]["loss"]
    assert trained.measures == {"loss": trained.loss, "half": 0.5, "far": 600.0}
    assert trained.tokens_per_second == pytest.approx(300 * 16 / trained.seconds)
    content = json.loads((tmp_path / "training.json").read_text())
    assert content["steps"] == 300
    assert {
        "step": 40,
        "measure": "far",
        "value": 80.0,
        "unit": "steps",
        "ci_low": 1.0,
        "ci_high": 3.0,
        "n_items": 16,
    } in (content["measures"])
    assert [each["ci_low"] for each in content["measures"] if each["measure"] == "half"] == [None] * 5


def test_what_was_measured_before_a_kill_is_in_the_record_once(tmp_path):
    def steps_of(folder):
        measures = json.loads((folder / "training.json").read_text())["measures"]
        return [each["step"] for each in measures if each["measure"] == "loss"]

    workshop = Workshop(tmp_path / "broken", tmp_path / "state")
    with pytest.raises(Killed):
        train(workshop, spoil=stop_at(34))
    train(workshop)
    assert steps_of(tmp_path / "broken") == [10, 20, 30, 40, 50, 60]


def test_training_ends_early_at_a_check_only_so_that_keeping_changes_nothing(tmp_path):
    for place, keep in (("a", ()), ("b", (5, 8, 50))):
        trained = train(
            Workshop(tmp_path / place, tmp_path / "state"),
            keep=keep,
            save_every=10,
            check=lambda step: {"done": float(step >= 5), "chance": float(torch.rand(()))},
            stop=lambda measures: measures["done"] == 1,
        )
        assert trained.steps == 10
    assert equal(tmp_path / "a", tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b" / "checkpoints").iterdir()) == ["step-5", "step-8"]


def test_the_step_that_ends_training_is_not_saved_as_one_to_go_on_from(tmp_path):
    workshop = Workshop(tmp_path / "a", tmp_path / "state")
    for _ in range(2):
        trained = train(workshop, save_every=10, check=lambda step: {}, stop=lambda measures: True)
        assert trained.steps == 10


def test_the_factor_scales_the_first_rate_and_not_the_last_one(tmp_path):
    train(Workshop(tmp_path / "a"), max_steps=2)
    train(Workshop(tmp_path / "b"), max_steps=2, rate=0.04, factor=lambda step: [0.5] * N_OPTIMIZERS)
    assert equal(tmp_path / "a", tmp_path / "b")
    train(Workshop(tmp_path / "c"), max_steps=2, factor=lambda step: [0.0] * N_OPTIMIZERS)
    train(Workshop(tmp_path / "d"), max_steps=1, keep=(0,))
    assert equal(tmp_path / "c", tmp_path / "d" / "checkpoints" / "step-0")


def test_each_seed_and_each_step_has_its_own_batch():
    draws = {
        tuple(torch.randint(1000, (4,), generator=batch_generator(seed, step)).tolist())
        for seed in (0, 1, 2**31 - 1, 2**31)
        for step in range(50)
    }
    assert len(draws) == 200


@pytest.mark.parametrize("numbers", [{"max_steps": 0}, {"check_every": 0}, {"save_every": 0}, {"keep": (5000,)}])
def test_a_schedule_that_makes_no_sense_is_refused(numbers):
    with pytest.raises(BadInput):
        Schedule(**{"max_steps": 10, **numbers})


def test_a_measured_mean_has_an_interval_of_its_items():
    found = measured_mean([0.0, 1.0, 1.0, 1.0] * 25)
    assert found.value == 0.75
    assert found.low == pytest.approx(0.75 - 1.96 * 0.0433, abs=0.02)
    assert found.high == pytest.approx(0.75 + 1.96 * 0.0433, abs=0.02)
    assert (found.unit, found.n_items) == ("fraction", 100)
