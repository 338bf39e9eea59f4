"""A two-layer GPT-2 that learns to copy: previous-token heads in layer 0, induction heads in layer 1."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.arguments import number_between, whole_number
from mneme.errors import BadInput
from mneme.progress import Progress, silent
from mneme.recipe import recipe

CHECK_EVERY = 25
HELD_OUT_ROWS = 64
HELD_OUT_SEED = 2**40 + 1  # no training seed is as large
IGNORED = -100


@dataclass(frozen=True)
class _Schedule:
    max_steps: int
    batch_size: int
    stop_at: float


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


@recipe()
def induction_lm(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    folder: Path,
    *,
    seed: int,
    progress: Progress = silent,
    n_heads: int = 4,
    width: int = 64,
    vocabulary: int = 128,
    length: int = 100,
    min_period: int = 5,
    max_period: int = 50,
    max_steps: int = 1500,
    batch_size: int = 64,
    stop_at: float = 0.99,
) -> dict[str, Any]:
    """Train on repeated random tokens of varying period until held-out copying is right, and save the model.

    The period varies because a fixed one is learnt as a shortcut over positions, without any previous-token head.
    The loss is taken only where the next token can be known. Hidden matrices are trained by Muon, the rest by AdamW;
    the same seed, machine and number of threads give the same weights. Id `vocabulary` is the first token, the
    context is `length` + 1. Training ends when held-out copy accuracy reaches `stop_at` at the shortest, the middle
    and the longest period, or after `max_steps`.
    Returns: steps, tokens, seconds, final loss (nats), the least held-out copy accuracy (0 .. 1).
    Raises: BadInput for sizes that do not fit together.
    """
    data = _Data(vocabulary, length, min_period, max_period)
    schedule = _Schedule(max_steps, batch_size, stop_at)
    _check(data, schedule, n_heads, width)
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(data, n_heads, width)
        steps, loss, accuracy = _train(model, data, schedule, torch.Generator().manual_seed(seed), progress)
    model.save_pretrained(folder)
    return {
        "steps": steps,
        "tokens": steps * batch_size * (length + 1),
        "seconds": time.monotonic() - started,
        "final_loss_nats": loss,
        "copy_accuracy": accuracy,
    }


def _check(data: _Data, schedule: _Schedule, n_heads: int, width: int) -> None:
    whole_number("induction_lm.n_heads", n_heads, 1)
    whole_number("induction_lm.width", width, 1)
    if width % n_heads:
        raise BadInput(f"induction_lm: width {width} is no multiple of n_heads {n_heads}: change one of them")
    whole_number("induction_lm.min_period", data.min_period, 2)
    whole_number("induction_lm.max_period", data.max_period, data.min_period, min(data.vocabulary, data.length // 2))
    whole_number("induction_lm.max_steps", schedule.max_steps, 1)
    whole_number("induction_lm.batch_size", schedule.batch_size, 1)
    number_between("induction_lm.stop_at", schedule.stop_at, 0, 1.0001)


def _new_model(data: _Data, n_heads: int, width: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=data.vocabulary + 1,
        n_positions=data.length + 1,
        n_embd=width,
        n_layer=2,
        n_head=n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        bos_token_id=data.vocabulary,
        eos_token_id=data.vocabulary,
    )
    return GPT2LMHeadModel(config)


def _optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    hidden = [each for name, each in model.named_parameters() if each.ndim == 2 and ".h." in name]
    known = {id(each) for each in hidden}
    rest = [each for each in model.parameters() if id(each) not in known]
    return [
        torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _train(
    model: GPT2LMHeadModel, data: _Data, schedule: _Schedule, generator: torch.Generator, progress: Progress
) -> tuple[int, float, float]:
    """Steps taken, last loss, least held-out copy accuracy."""
    optimizers = _optimizers(model)
    model.train()
    loss = accuracy = float("nan")
    for step in range(1, schedule.max_steps + 1):
        batch_loss = _loss(model, *data.draw(schedule.batch_size, generator))
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(batch_loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % CHECK_EVERY == 0 or step == schedule.max_steps:
            loss, accuracy = float(batch_loss.detach()), held_out_accuracy(model, data)
            progress(step, schedule.max_steps, f"loss {loss:.3f}, copy accuracy {accuracy:.3f}")
            if accuracy >= schedule.stop_at:
                break
    model.eval()
    return step, loss, accuracy


def _loss(model: GPT2LMHeadModel, ids: Tensor, targets: Tensor) -> Tensor:
    known = targets != IGNORED
    hidden = model.transformer(ids).last_hidden_state[known]
    return F.cross_entropy(model.lm_head(hidden), targets[known])


@torch.no_grad()
def held_out_accuracy(model: GPT2LMHeadModel, data: _Data) -> float:
    """The least share of right first choices over the shortest, the middle and the longest period, on new rows."""
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    shares = []
    for period in (data.min_period, (data.min_period + data.max_period) // 2, data.max_period):
        ids, targets = data.draw(HELD_OUT_ROWS, generator, period)
        known = targets != IGNORED
        chosen = model.lm_head(model.transformer(ids).last_hidden_state[known]).argmax(dim=-1)
        shares.append(float((chosen == targets[known]).float().mean()))
    model.train(was_training)
    return min(shares)
