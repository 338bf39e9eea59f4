"""A small model of addition modulo a prime: it first learns its sums by heart, and may understand them much later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.arguments import number_between, whole_number
from mneme.attention_diversity import entropy_spread, head_cosine
from mneme.recipe import Workshop, recipe
from mneme.steps import LOG_SPACED, kept_steps
from mneme.toys.heads import ToyShape, forward_with_heads, toy_model
from mneme.training import Measure, Measures, Schedule, batch_generator, measured_mean, train_model

CONTEXT = 32  # room for the prompts of stock probes; sums fill three places
HELD_OUT_SEED = 2**31  # no training seed is as large
PROBE_SUMS = 128


@dataclass(frozen=True)
class _Data:
    """Prompts [item 3], their sums [item], and which items are trained, tested and watched [item]."""

    prompts: Tensor
    sums: Tensor
    train: Tensor
    test: Tensor
    watched: Tensor


@recipe()
def modular_arithmetic(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    modulus: int = 31,
    train_share: float = 0.6,
    weight_decay: float = 1.0,
    has_shuffled_sums: bool = False,
    n_layers: int = 1,
    n_heads: int = 4,
    width: int = 64,
    max_steps: int = 2000,
    rate: float = 1e-3,
    check_every: int = 100,
    keep: Sequence[int] | str = LOG_SPACED,
) -> dict[str, Any]:
    """Train on a fixed share of all a + b mod `modulus`, in full batches by AdamW, and test on the others.

    A prompt is a, b and an equals sign, whose id is `modulus`; the sum is asked for there. The share is drawn anew for
    each seed; `has_shuffled_sums` deals the sums out at random first (a control: nothing can be understood).
    Departs from METHODS 21 in its modulus (METHODS about 100) and in its shape, GPT-2's with its norms.
    Measured while training: accuracy on both shares (intervals over sums), head cosine s and entropy spread sigma_H on
    the same 128 sums throughout.
    Returns: steps, tokens, seconds, final loss (nats), the measures of the last check.
    Raises: BadInput for sizes that do not fit together.
    """
    whole_number("modular_arithmetic.modulus", modulus, 12)
    whole_number("modular_arithmetic.n_heads", n_heads, 2)
    number_between("modular_arithmetic.train_share", train_share, 0.05, 0.96)
    number_between("modular_arithmetic.weight_decay", weight_decay, 0, 100)
    shape = ToyShape(n_layers, n_heads, width)
    data = _split(modulus, train_share, seed, is_shuffled=has_shuffled_sums)
    spec = {"recipe": "modular_arithmetic", "seed": seed, "modulus": modulus, "train_share": train_share, "rate": rate}
    spec |= {"weight_decay": weight_decay, "has_shuffled_sums": has_shuffled_sums, **asdict(shape)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = toy_model(shape, modulus + 1, CONTEXT)
        trained = train_model(
            workshop,
            model,
            [torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay)],
            lambda _step: F.cross_entropy(_logits(model, data, data.train), data.sums[data.train]),
            schedule=Schedule(
                max_steps,
                kept_steps("modular_arithmetic.keep", keep, max_steps),
                check_every=check_every,
                save_every=1000,
                tokens_per_step=3 * len(data.train),
            ),
            spec={**spec, "max_steps": max_steps},
            check=lambda _step: _measures(model, data),
        )
    return {"tokens": trained.steps * 3 * len(data.train), **asdict(trained)}


def all_sums(modulus: int) -> tuple[Tensor, Tensor]:
    """Every prompt [item 3] (a, b, the equals sign) and its sum modulo `modulus` [item]."""
    numbers = torch.arange(modulus)
    pairs = torch.cartesian_prod(numbers, numbers)
    sign = torch.full((len(pairs), 1), modulus)
    return torch.cat([pairs, sign], dim=1), pairs.sum(dim=1) % modulus


def _split(modulus: int, train_share: float, seed: int, *, is_shuffled: bool) -> _Data:
    prompts, sums = all_sums(modulus)
    if is_shuffled:
        sums = sums[torch.randperm(len(sums), generator=batch_generator(seed, 1))]
    order = torch.randperm(len(sums), generator=batch_generator(seed, 0))
    n_train = round(train_share * len(sums))
    watched = torch.randperm(len(sums), generator=batch_generator(HELD_OUT_SEED, 0))[:PROBE_SUMS]
    return _Data(prompts, sums, order[:n_train], order[n_train:], watched)


def _logits(model: Any, data: _Data, of: Tensor) -> Tensor:
    hidden = model.transformer(input_ids=data.prompts[of], use_cache=False).last_hidden_state[:, -1]
    logits: Tensor = model.lm_head(hidden)[:, : int(data.prompts[0, -1])]  # the sign's id is the modulus
    return logits


def _measures(model: Any, data: _Data) -> Measures:
    found: dict[str, Measure] = {}
    for name, of in (("train", data.train), ("test", data.test)):
        is_right = _logits(model, data, of).argmax(dim=-1) == data.sums[of]
        found[f"{name}_accuracy"] = measured_mean(is_right.double().numpy())
    attention = forward_with_heads(model, data.prompts[data.watched])[1]
    cosine, spread = float(head_cosine(attention).mean()), float(entropy_spread(attention).mean())
    found |= {"head_cosine": Measure(cosine, "cosine"), "entropy_spread": Measure(spread, "nats")}
    return {**found, "chance": Measure(1 / int(data.prompts[0, -1]))}
