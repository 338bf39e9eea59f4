"""Small models that learn to recall pairs: with attention, or with a memory whose size is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.arguments import number_between, whole_number
from mneme.recipe import Workshop, recipe
from mneme.steps import kept_steps
from mneme.toys.memories import MemoryShape, hidden_states, memory_model, state_numbers
from mneme.toys.recall import RecallTask, checked_sizes, context_of, queries_of
from mneme.training import Measure, Measures, Schedule, batch_generator, measured_mean, train_model

HELD_OUT_ROWS = 16
HELD_OUT_SEED = 2**31  # no training seed is as large
WARM_UP_STEPS = 50
FALLING = 0.4  # share of the steps, the last ones, over which the rates fall to zero


@recipe()
def pair_recall(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    shape: str = "attention",
    n_layers: int = 2,
    width: int = 64,
    state_width: int = 16,
    n_keys: int = 72,
    n_values: int = 4,
    n_pairs: Sequence[int] = (4, 8, 16, 32, 64),
    max_steps: int = 400,
    tokens_per_step: int = 2048,
    hidden_rate: float = 0.02,
    rate: float = 3e-3,
    check_every: int = 250,
    keep: Sequence[int] | str = (),
) -> dict[str, Any]:
    """Train to name the value of every key after a list of pairs (mneme/toys/recall.py), in lists of several lengths.

    shape, n_layers, width, state_width: mneme/toys/memories.py. A step's rows all have one number of pairs, drawn from
    those of `n_pairs` that have been let in: one after the other, the last at half of the steps; as many rows as make
    `tokens_per_step` tokens. The loss is taken at the keys asked, over the values. Matrices of layers are trained by
    Muon at `hidden_rate` (0: by AdamW as all else), the rest by AdamW at `rate`.
    Departs from Zoology: few values, which recur, since LSTMs of these sizes stayed at a guess among the values of a
    list for 2,000 steps when there were as many values as keys; every slot after the pairs holds a key; a first token.
    Measured while training, on held-out rows: `recall_<n>`, the share of right answers in lists of n pairs; beside it
    chance (1 / n_values) and `state_numbers`, what the model holds of the longest list once it is read.
    Returns: steps, tokens, seconds, final loss (nats), the measures of the last check.
    Raises: BadInput for sizes that do not fit together.
    """
    task, memory = RecallTask(n_keys, n_values), MemoryShape(shape, n_layers, width, state_width)
    sizes = checked_sizes("pair_recall.n_pairs", n_pairs, n_keys)
    whole_number("pair_recall.tokens_per_step", tokens_per_step, 1)
    number_between("pair_recall.hidden_rate", hidden_rate, 0, 1)
    spec = {"recipe": "pair_recall", "seed": seed, **asdict(task), **asdict(memory), "n_pairs": sizes, "rate": rate}
    spec |= {"max_steps": max_steps, "tokens_per_step": tokens_per_step, "hidden_rate": hidden_rate}
    let_in = tuple(number * max_steps // (2 * len(sizes)) for number in range(1, len(sizes)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = memory_model(memory, task.first_id + 1, context_of(sizes[-1]), task.first_id)

        def loss(step: int) -> Tensor:
            generator = batch_generator(seed, step)
            known = sizes[: 1 + sum(step > each for each in let_in)]
            size = known[int(torch.randint(len(known), (), generator=generator))]
            ids, answers = task.draw(max(4, tokens_per_step // context_of(size)), size, generator)
            return F.cross_entropy(_scores(model, task, ids, size).flatten(0, 1), answers.flatten())

        trained = train_model(
            workshop,
            model,
            _optimizers(model, hidden_rate, rate),
            loss,
            schedule=Schedule(
                max_steps,
                kept_steps("pair_recall.keep", keep, max_steps),
                check_every=check_every,
                tokens_per_step=tokens_per_step,
                changes=let_in,
            ),
            spec=spec,
            check=lambda _step: _measures(model, task, memory, sizes),
            factor=partial(_factors, max_steps, 2 if hidden_rate else 1),
        )
    return {"tokens": trained.steps * tokens_per_step, **asdict(trained)}


def _scores(model: Any, task: RecallTask, ids: Tensor, n_pairs: int) -> Tensor:
    """Logits of the values at the keys asked [item query value]."""
    logits: Tensor = model.lm_head(hidden_states(model, ids)[:, queries_of(n_pairs)])
    return logits[..., task.first_value : task.first_id]


def _optimizers(model: Any, hidden_rate: float, rate: float) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices of layers where it has a rate."""
    named = dict(model.named_parameters())
    hidden = {name: each for name, each in named.items() if hidden_rate and each.ndim == 2 and ".layers." in name}
    rest = [each for name, each in named.items() if name not in hidden]
    adamw = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    if not hidden_rate:
        return [adamw]
    matrices = list(hidden.values())
    muon = torch.optim.Muon(matrices, lr=hidden_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original")
    return [adamw, muon]


def _factors(max_steps: int, n_optimizers: int, step: int) -> list[float]:
    left = (max_steps - step + 1) / (FALLING * max_steps)
    return [min(1.0, step / WARM_UP_STEPS, left)] * n_optimizers


def _measures(model: Any, task: RecallTask, memory: MemoryShape, sizes: Sequence[int]) -> Measures:
    found: dict[str, Measure] = {}
    for size in sizes:
        ids, answers = task.draw(HELD_OUT_ROWS, size, batch_generator(HELD_OUT_SEED, size))
        is_right = _scores(model, task, ids, size).argmax(dim=-1) == answers
        found[f"recall_{size}"] = measured_mean(is_right.double().mean(dim=1).numpy())
    numbers = state_numbers(memory, context_of(sizes[-1]))
    return {**found, "chance": Measure(1 / task.n_values), "state_numbers": Measure(float(numbers), "numbers")}
