"""A small model of the bigram-backcopy task: a head with work on some rows, and nothing to do on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.nn import functional as F

from mneme.arguments import one_of, whole_number
from mneme.recipe import Workshop, recipe
from mneme.steps import LOG_SPACED, kept_steps
from mneme.toys.backcopy import backcopy_measures, backcopy_of_prose
from mneme.toys.heads import ToyShape, forward_with_heads, toy_model
from mneme.training import Measures, Schedule, batch_generator, train_model

HELD_OUT_ROWS = 64
HELD_OUT_SEED = 2**31  # no training seed is as large


@recipe()
def bigram_backcopy(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    n_layers: int = 1,
    n_heads: int = 1,
    width: int = 64,
    length: int = 64,
    attention: str = "softmax",
    first: str = "constant",
    max_steps: int = 400,
    batch_size: int = 16,
    rate: float = 3e-3,
    check_every: int = 50,
    keep: Sequence[int] | str = LOG_SPACED,
) -> dict[str, Any]:
    """Train on characters that follow a bigram table of prose, except after triggers, which are followed by a copy.

    attention: `softmax` (a stock GPT-2), or `sigmoid` (no normalisation; a class of its own, `sigmoid_attention`).
    first: `constant` puts one token in front of every row, `none` nothing (a control).
    `length` counts the first token. All by AdamW at `rate`. Departs from METHODS 18 in its size (width 64, rows of 64
    characters, a higher rate) and in its text, the project's own prose.
    Measured while training, on held-out rows with intervals over them: mneme/toys/backcopy.py.
    Returns: steps, tokens, seconds, final loss (nats), the measures of the last check.
    Raises: BadInput for sizes that do not fit together or a word that is no choice.
    """
    one_of("bigram_backcopy.attention", attention, ("softmax", "sigmoid"))
    has_first = one_of("bigram_backcopy.first", first, ("constant", "none")) == "constant"
    whole_number("bigram_backcopy.length", length, 8)
    whole_number("bigram_backcopy.batch_size", batch_size, 1)
    shape, process = ToyShape(n_layers, n_heads, width), backcopy_of_prose()
    first_id = process.first_id if has_first else None
    spec = {"recipe": "bigram_backcopy", "seed": seed, **asdict(shape), "length": length, "attention": attention}
    spec |= {"first": first, "max_steps": max_steps, "batch_size": batch_size, "rate": rate}
    held_out = process.draw(HELD_OUT_ROWS, length, batch_generator(HELD_OUT_SEED, 0), has_first=has_first)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = toy_model(shape, process.first_id + 1, length, first_id=first_id, is_sigmoid=attention == "sigmoid")

        def loss(step: int) -> torch.Tensor:
            ids = process.draw(batch_size, length, batch_generator(seed, step), has_first=has_first)
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

        def check(_step: int) -> Measures:
            return backcopy_measures(process, held_out, *forward_with_heads(model, held_out))

        trained = train_model(
            workshop,
            model,
            [torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)],
            loss,
            schedule=Schedule(
                max_steps,
                kept_steps("bigram_backcopy.keep", keep, max_steps),
                check_every=check_every,
                tokens_per_step=batch_size * length,
            ),
            spec=spec,
            check=check,
        )
    return {"tokens": trained.steps * batch_size * length, **asdict(trained)}
