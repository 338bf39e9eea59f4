"""A small GPT-2 that learns to copy: with two layers, previous-token heads in layer 0, induction heads in layer 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.arguments import number_between, whole_number
from mneme.errors import BadInput
from mneme.optimizers import muon_and_adamw
from mneme.recipe import Workshop, recipe
from mneme.steps import kept_steps
from mneme.training import Measure, Schedule, batch_generator, measured_mean, train_model

HELD_OUT_ROWS = 64
HELD_OUT_SEED = 2**31  # no training seed is as large
REPEATED_STEP = 2**31  # no step is as late: the rows that are repeated are drawn at it
IGNORED = -100


@dataclass(frozen=True)
class _Shape:
    n_layers: int
    n_heads: int
    width: int


@dataclass(frozen=True)
class _Data:
    """Rows of one first token and `length` tokens that repeat with a period drawn anew for each row."""

    vocabulary: int
    length: int
    min_period: int
    max_period: int

    def draw(self, n_rows: int, generator: torch.Generator, period: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids [item position] and targets [item position], IGNORED where the next token cannot be known."""
        low, high = (self.min_period, self.max_period) if period is None else (period, period)
        periods = torch.randint(low, high + 1, (n_rows, 1), generator=generator)
        pools = torch.rand(n_rows, self.vocabulary, generator=generator).argsort(dim=1)
        body = torch.gather(pools, 1, torch.arange(self.length)[None] % periods)
        ids = torch.cat([torch.full((n_rows, 1), self.vocabulary), body], dim=1)
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        # Position p (the first token is 0) is the first of the second copy at p = period + 1: from there on the
        # token after it has been seen after the same token before.
        return ids, targets.masked_fill(torch.arange(self.length + 1) <= periods, IGNORED)


@dataclass(frozen=True)
class _Repeats:
    """A share of each batch drawn from `n_repeated` rows that stay the same (METHODS 16, Hernandez 2022)."""

    n_repeated: int
    repeated_share: float

    def draw(self, data: _Data, n_rows: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Ids and targets of a step [item position]: fresh rows, then repeated ones."""
        generator = batch_generator(seed, step)
        n_old = round(self.repeated_share * n_rows) if self.n_repeated else 0
        fresh = data.draw(n_rows - n_old, generator)
        if n_old == 0:
            return fresh
        kept = data.draw(self.n_repeated, batch_generator(seed, REPEATED_STEP))
        chosen = torch.randint(self.n_repeated, (n_old,), generator=generator)
        return torch.cat([fresh[0], kept[0][chosen]]), torch.cat([fresh[1], kept[1][chosen]])


@recipe()
def induction_lm(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    n_layers: int = 2,
    n_heads: int = 4,
    width: int = 64,
    vocabulary: int = 128,
    length: int = 100,
    min_period: int = 5,
    max_period: int = 50,
    max_steps: int = 1500,
    batch_size: int = 64,
    stop_at: float = 0.99,
    n_repeated: int = 0,
    repeated_share: float = 0.9,
    keep: Sequence[int] | str = (),
) -> dict[str, Any]:
    """Train on repeated random tokens of varying period until held-out copying is right, and save the model.

    The period varies because a fixed one is learnt as a shortcut over positions, without any previous-token head. One
    layer cannot do it: an induction head reads what a previous-token head wrote in a layer below.
    The loss is taken only where the next token can be known. Hidden matrices are trained by Muon, the rest by AdamW;
    the same seed, machine and number of threads give the same weights. Id `vocabulary` is the first token, the
    context is `length` + 1. Training ends when held-out copy accuracy reaches `stop_at` at the shortest, the middle
    and the longest period, or after `max_steps`. The weights of the steps in `keep` (a list, or `log_spaced`) are kept.
    With `n_repeated`, a share `repeated_share` of each batch comes from that many rows, drawn once; 0: all are fresh.
    Held-out rows are always fresh ones.
    Returns: steps, tokens, seconds, final loss (nats), the least held-out copy accuracy (0 .. 1).
    Raises: BadInput for sizes that do not fit together.
    """
    shape, data = _Shape(n_layers, n_heads, width), _Data(vocabulary, length, min_period, max_period)
    whole_number("induction_lm.max_steps", max_steps, 1)
    whole_number("induction_lm.batch_size", batch_size, 1)
    number_between("induction_lm.stop_at", stop_at, 0, 1.0001)
    _check(shape, data)
    repeats = _Repeats(whole_number("induction_lm.n_repeated", n_repeated, 0), repeated_share)
    number_between("induction_lm.repeated_share", repeated_share, 0, 1.0001)
    n_tokens = batch_size * (length + 1)
    schedule = Schedule(max_steps, kept_steps("induction_lm.keep", keep, max_steps), tokens_per_step=n_tokens)
    asked = {**asdict(shape), **asdict(data), "max_steps": max_steps, "batch_size": batch_size, "stop_at": stop_at}
    asked |= asdict(repeats) if n_repeated else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(shape, data)
        trained = train_model(
            workshop,
            model,
            muon_and_adamw(model),
            lambda step: _loss(model, *repeats.draw(data, batch_size, seed, step)),
            schedule=schedule,
            spec={"recipe": "induction_lm", "seed": seed, **asked},
            check=lambda _: {"copy_accuracy": held_out_accuracy(model, data), "fresh_loss": held_out_loss(model, data)},
            stop=lambda measures: measures["copy_accuracy"] >= stop_at,
        )
    return {
        "steps": trained.steps,
        "tokens": trained.steps * n_tokens,
        "seconds": trained.seconds,
        "final_loss_nats": trained.loss,
        "copy_accuracy": trained.measures["copy_accuracy"],
    }


def _check(shape: _Shape, data: _Data) -> None:
    whole_number("induction_lm.n_layers", shape.n_layers, 1)
    whole_number("induction_lm.n_heads", shape.n_heads, 1)
    whole_number("induction_lm.width", shape.width, 1)
    if shape.width % shape.n_heads:
        raise BadInput(
            f"induction_lm: width {shape.width} is no multiple of n_heads {shape.n_heads}: change one of them"
        )
    whole_number("induction_lm.min_period", data.min_period, 2)
    whole_number("induction_lm.max_period", data.max_period, data.min_period, min(data.vocabulary, data.length // 2))


def _new_model(shape: _Shape, data: _Data) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=data.vocabulary + 1,
        n_positions=data.length + 1,
        n_embd=shape.width,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        bos_token_id=data.vocabulary,
        eos_token_id=data.vocabulary,
    )
    return GPT2LMHeadModel(config)


def _loss(model: GPT2LMHeadModel, ids: Tensor, targets: Tensor) -> Tensor:
    known = targets != IGNORED
    hidden = model.transformer(ids).last_hidden_state[known]
    return F.cross_entropy(model.lm_head(hidden), targets[known])


def held_out_accuracy(model: GPT2LMHeadModel, data: _Data) -> Measure:
    """Share of right first choices on new rows: the least of the shortest, the middle and the longest period's."""
    generator = batch_generator(HELD_OUT_SEED, 0)
    found = []
    for period in (data.min_period, (data.min_period + data.max_period) // 2, data.max_period):
        ids, targets = data.draw(HELD_OUT_ROWS, generator, period)
        known = targets != IGNORED
        choices = model.lm_head(model.transformer(ids).last_hidden_state).argmax(dim=-1)
        right = ((choices == targets) & known).sum(dim=1) / known.sum(dim=1)
        found.append(measured_mean(right.numpy()))
    return min(found, key=lambda each: each.value)


def held_out_loss(model: GPT2LMHeadModel, data: _Data) -> Measure:
    """Loss on new rows where the next token can be known, nats a token; the interval is over rows."""
    ids, targets = data.draw(HELD_OUT_ROWS, batch_generator(HELD_OUT_SEED, 1))
    logits = model.lm_head(model.transformer(ids).last_hidden_state)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return measured_mean((losses.view(ids.shape).sum(dim=1) / (targets != IGNORED).sum(dim=1)).numpy(), "nats")
