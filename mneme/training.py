"""The one training loop of all recipes: observed while it runs, resumed after a kill, its steps kept."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.optim import Optimizer

from mneme.arguments import whole_number
from mneme.errors import BadInput
from mneme.recipe import Workshop
from mneme.stats import bootstrap_mean
from mneme.training_state import Notes, checkpoint, find_state, save_state, write_folder

MEASURES = "training.json"  # in the finished folder: what was measured on the way
GRADIENT_NORM = 1.0
DIVERGED_TIMES = 10.0
DIVERGED_STEPS = 20
DIVERGED_LOSS = 0.5  # below it a loss that jumps is one that was tiny: adaptive steps do that when gradients vanish
_MEDIAN_STEPS = 100
_RESAMPLES = 1000


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when to look.

    keep: steps whose weights are kept (0 = before any update); check_every: steps between checks; save_every: steps
    between saved states, so many are repeated at most after a kill; tokens_per_step: makes the speed tokens per second
    instead of steps per second; changes: steps after which the data are of another kind, so that the loss is not
    compared with what it was before.
    Raises BadInput for a number that makes no sense.
    """

    max_steps: int
    keep: tuple[int, ...] = ()
    check_every: int = 25
    save_every: int = 200
    tokens_per_step: int | None = None
    loss_unit: str = "nats"
    changes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        whole_number("max_steps", self.max_steps, 1)
        whole_number("check_every", self.check_every, 1)
        whole_number("save_every", self.save_every, 1)
        for step in self.keep:
            whole_number("a kept step", step, 0, self.max_steps)


@dataclass(frozen=True)
class Measure:
    """A number measured while training, with its unit and, where there is one, its interval over `n_items` items."""

    value: float
    unit: str = "fraction"
    low: float = math.nan
    high: float = math.nan
    n_items: int | None = None


Measures = Mapping[str, float | Measure]  # a plain number is a fraction


@dataclass(frozen=True)
class Trained:
    """How training ended.

    steps: updates done; loss: of the last batch, before its update; measures: of the last check, the loss among them;
    seconds: spent in updates, over all processes that took part; tokens_per_second: NaN without `tokens_per_step`.
    """

    steps: int
    loss: float
    measures: Mapping[str, float]
    seconds: float
    tokens_per_second: float


def measured_mean(values: ArrayLike, unit: str = "fraction") -> Measure:
    """Mean over items [item] with its bootstrap interval (METHODS 4, with fewer resamples, as it is often drawn)."""
    found = bootstrap_mean(values, seed=0, n_resamples=_RESAMPLES)
    return Measure(float(found.estimate), unit, float(found.low), float(found.high), int(found.n_items))


def batch_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step of one seed (below 2**32 each).

    torch's CPU generator looks at the lower 32 bits of a seed only: seed and step are mixed first.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))


def train_model(  # noqa: PLR0913  what a recipe decides about its training
    workshop: Workshop,
    model: Any,
    optimizers: Sequence[Optimizer],
    loss: Callable[[int], Tensor],
    *,
    schedule: Schedule,
    spec: Mapping[str, Any],
    check: Callable[[int], Measures] | None = None,
    stop: Callable[[Mapping[str, float]], bool] | None = None,
    factor: Callable[[int], Sequence[float]] | None = None,
    tokenizer: Any = None,
) -> Trained:
    """Train until `stop` or `max_steps`, write the model into `workshop.folder` and the kept steps below it.

    loss(step), step from 1: the scalar loss of a batch drawn from (seed, step) alone, so that no state of the data has
    to be saved. factor(step): one number for each optimizer, times its groups' first learning rates. check(step):
    measures on held-out data, without gradient, in evaluation mode; it is called every `check_every` steps, at kept
    steps and at the last, and leaves torch's random state alone. stop(measures) is asked every `check_every` steps
    only, so that the weights do not depend on what is kept. The gradient's norm is clipped to 1.
    spec: JSON that says all that the weights depend on. Unfinished training in `workshop.state` goes on where it was
    saved and ends in the same weights, bit for bit, on the same machine with the same number of threads.
    Raises BadInput when the state is of another spec, and when training diverges: a loss or gradient that is no number,
    or a loss above 0.5 and over 10 times its running median for 20 steps; the last good state and the kept steps stay.
    """
    training = _Training(workshop, model, optimizers, schedule, spec, tokenizer)
    model.train()
    if not training.resume():
        training.keep(0)
        if 0 in schedule.keep:
            training.look(0, check)
    for step in range(training.notes.step + 1, schedule.max_steps + 1):
        training.update(step, loss, [1.0] * len(optimizers) if factor is None else factor(step))
        training.keep(step)
        is_check = step % schedule.check_every == 0 or step == schedule.max_steps
        if is_check or step in schedule.keep:
            training.look(step, check)
        if is_check and stop is not None and stop(training.measures):
            break
        training.save(step)
    model.eval()
    return training.finish()


class _Training:
    """The state of one training, and what is done to it."""

    def __init__(
        self,
        workshop: Workshop,
        model: Any,
        optimizers: Sequence[Optimizer],
        schedule: Schedule,
        spec: Mapping[str, Any],
        tokenizer: Any,
    ) -> None:
        self.workshop, self.model, self.optimizers = workshop, model, optimizers
        self.schedule, self.spec, self.tokenizer = schedule, spec, tokenizer
        self.notes = Notes()
        self.measures: dict[str, float] = {}
        self._rates = [[group["lr"] for group in each.param_groups] for each in optimizers]
        self._strange_steps = 0
        self._looked_at = (0, 0.0)  # step, seconds

    def resume(self) -> bool:
        """Go back to the saved state, if there is one."""
        if self.workshop.state is None:
            return False
        found = find_state(self.workshop.state, self.spec, self.schedule.keep, self.model, self.optimizers)
        if found is None:
            return False
        self.notes, self._looked_at = found, (found.step, found.seconds)
        return True

    def update(self, step: int, loss: Callable[[int], Tensor], factors: Sequence[float]) -> None:
        """One batch, one step of each optimizer."""
        started = time.perf_counter()
        if step - 1 in self.schedule.changes:
            self.notes.losses, self._strange_steps = [], 0
        batch_loss = loss(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self._watch(step, float(batch_loss.detach()), float(norm))
        for optimizer, rates, factor in zip(self.optimizers, self._rates, factors, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
        self.notes.step = step
        self.notes.seconds += time.perf_counter() - started

    def _watch(self, step: int, loss: float, norm: float) -> None:
        """Refuse to go on when training diverges; called before the weights change."""
        losses = self.notes.losses
        limit = max(DIVERGED_LOSS, DIVERGED_TIMES * statistics.median(losses)) if losses else math.inf
        is_strange = len(losses) >= DIVERGED_STEPS and loss > limit
        self._strange_steps = self._strange_steps + 1 if is_strange else 0
        if not math.isfinite(loss) or not math.isfinite(norm) or self._strange_steps >= DIVERGED_STEPS:
            place = self.workshop.state or self.workshop.folder
            raise BadInput(
                f"training diverged at step {step} (loss {loss:.4g}, gradient norm {norm:.4g}): lower the learning "
                f"rate or change the data; the last good weights stay in {place}"
            )
        self.notes.losses = [*losses, loss][-_MEDIAN_STEPS:]

    def look(self, step: int, check: Callable[[int], Measures] | None) -> None:
        """Measure, and tell what was measured and where training stands."""
        found: dict[str, Measure] = {}
        if step > 0:
            found["loss"] = Measure(self.notes.losses[-1], self.schedule.loss_unit)
        if check is not None:
            for name, value in self._checked(step, check).items():
                found[name] = value if isinstance(value, Measure) else Measure(float(value))
        self.measures = {name: each.value for name, each in found.items()}
        speed = self._speed(step)
        self.notes.measures += [_row(step, name, each) for name, each in {**found, **speed}.items()]
        self.workshop.log(step, self.measures | {name: each.value for name, each in speed.items()})
        words = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self.measures.items())
        self.workshop.progress(step, self.schedule.max_steps, words)

    def _checked(self, step: int, check: Callable[[int], Measures]) -> Measures:
        device = next(self.model.parameters()).device
        self.model.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            measures = check(step)
        self.model.train()
        return measures

    def _speed(self, step: int) -> dict[str, Measure]:
        """Of the updates since the last look."""
        n_steps, seconds = step - self._looked_at[0], self.notes.seconds - self._looked_at[1]
        self._looked_at = (step, self.notes.seconds)
        if n_steps == 0:
            return {}
        if self.schedule.tokens_per_step is None:
            return {"steps_per_second": Measure(n_steps / seconds, "steps/s")}
        return {"tokens_per_second": Measure(n_steps * self.schedule.tokens_per_step / seconds, "tokens/s")}

    def keep(self, step: int) -> None:
        """Keep the weights of a step that is to be kept."""
        if step in self.schedule.keep:
            write_folder(checkpoint(self.workshop.state or self.workshop.folder, step), self._write)

    def save(self, step: int) -> None:
        """Save the state when its time has come and training looks sound."""
        is_due = step % self.schedule.save_every == 0 and step < self.schedule.max_steps
        if self.workshop.state is not None and is_due and self._strange_steps == 0:
            save_state(self.workshop.state, self.spec, self.notes, self.model, self.optimizers)

    def finish(self) -> Trained:
        """Write the model, the kept steps and the measures."""
        folder, state, notes = self.workshop.folder, self.workshop.state, self.notes
        self._write(folder)
        for step in self.schedule.keep:
            if state is not None and step <= notes.step:
                shutil.copytree(checkpoint(state, step), checkpoint(folder, step), dirs_exist_ok=True)
        content = {"steps": notes.step, "measures": notes.measures}
        (folder / MEASURES).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        tokens = self.schedule.tokens_per_step
        speed = math.nan if tokens is None else notes.step * tokens / notes.seconds
        return Trained(notes.step, notes.losses[-1], self.measures, notes.seconds, speed)

    def _write(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def _row(step: int, name: str, measure: Measure) -> dict[str, Any]:
    numbers = {"value": measure.value, "ci_low": measure.low, "ci_high": measure.high}
    plain = {key: float(value) if math.isfinite(value) else None for key, value in numbers.items()}
    return {"step": step, "measure": name, "unit": measure.unit, **plain, "n_items": measure.n_items}
