"""A small model that may learn labels by heart, or read them from the context: which one depends on its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.arguments import whole_number
from mneme.optimizers import muon_and_adamw
from mneme.recipe import Workshop, recipe
from mneme.steps import LOG_SPACED, kept_steps
from mneme.toys.heads import ToyShape, forward_with_heads, toy_model
from mneme.toys.labels import (
    N_PAIRS,
    Contexts,
    LabelTask,
    absent_contexts,
    best_head,
    induction_strength,
    label_credit,
    novel_contexts,
    previous_strength,
    swapped_contexts,
    training_contexts,
)
from mneme.training import Measure, Measures, Schedule, batch_generator, measured_mean, train_model

HELD_OUT_ROWS = 256
HELD_OUT_SEED = 2**31  # no training seed is as large
WORLD = 2**31 + 1  # of the vectors: one world for all seeds


@recipe()
def in_context_labels(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    n_classes: int = 8192,
    n_novel: int = 64,
    n_exemplars: int = 2,
    n_labels: int = 16,
    p_burst: float = 1.0,
    burstiness: int = 2,
    alpha: float = 0.0,
    noise: float = 0.1,
    has_random_labels: bool = False,
    n_layers: int = 2,
    n_heads: int = 1,
    width: int = 64,
    max_steps: int = 800,
    batch_size: int = 64,
    hidden_rate: float = 0.02,
    rate: float = 3e-3,
    check_every: int = 50,
    keep: Sequence[int] | str = LOG_SPACED,
) -> dict[str, Any]:
    """Train to name the label of a query item after 8 pairs of items and labels (Task R of METHODS 16).

    `burstiness` is how often the query's class stands among the pairs in a share `p_burst` of the contexts, `alpha` the
    exponent of the classes' frequencies, `noise` eps; `has_random_labels` gives the pairs labels that say nothing.
    Two of each make four labels in a context: of two labels, knowing that one is wrong names the other. With four
    labels and 4,096 classes, reading gave way to knowing by heart within 400 steps; with 16,384 none came in 600.
    The vectors of the tokens are drawn once, the same for each seed, and stay as they are; only labels are predicted,
    after every item of a context. Hidden matrices are trained by Muon at `hidden_rate`, the rest by AdamW at `rate`.
    Departs from Reddy 2023: items are tokens, a few exemplars of each class, and known classes are tested on exemplars
    seen in training; a first token; GPT-2's layers with an MLP in each, layer norms and learned positions; optimizers.
    Reddy asks for the query's label alone: with that loss this model stayed at a guess among the labels of the context
    for 1,200 steps, whatever its rate.
    Measured while training, with intervals over held-out contexts: accuracy on novel classes (`icl`), where the query's
    class is absent (`iwl`), where known classes change their labels (`icl_swap`, and `iwl_swap` for the old label),
    strengths of the best heads; beside them chance (1 / n_labels) and what guessing a label of the context reaches.
    Returns: steps, tokens, seconds, final loss (nats), the measures of the last check.
    Raises: BadInput for sizes that do not fit together.
    """
    task = LabelTask(n_classes, n_novel, n_exemplars, n_labels, p_burst, burstiness, alpha, noise)
    whole_number("in_context_labels.batch_size", batch_size, 1)
    shape, context = ToyShape(n_layers, n_heads, width), 2 * N_PAIRS + 2
    spec = {"recipe": "in_context_labels", "seed": seed, **asdict(task), **asdict(shape), "max_steps": max_steps}
    spec |= {"batch_size": batch_size, "hidden_rate": hidden_rate, "rate": rate, "has_random_labels": has_random_labels}
    exams = _exams(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = toy_model(shape, task.first_id + 1, context, first_id=task.first_id)
        with torch.no_grad():
            model.transformer.wte.weight.copy_(task.embeddings(width, batch_generator(WORLD, 0)))
        model.transformer.wte.weight.requires_grad_(False)

        def loss(step: int) -> Tensor:
            generator = batch_generator(seed, step)
            drawn = training_contexts(task, batch_size, generator, has_random_labels=has_random_labels)
            hidden = model.transformer(input_ids=drawn.ids, use_cache=False).last_hidden_state[:, 1::2]
            vectors = model.transformer.wte.weight[task.first_label : task.first_id]
            labels = torch.cat([drawn.labels, drawn.answer[:, None]], dim=1)
            return F.cross_entropy((hidden @ vectors.T).flatten(0, 1), labels.flatten())

        trained = train_model(
            workshop,
            model,
            muon_and_adamw(model, hidden_rate, rate),
            loss,
            schedule=Schedule(
                max_steps,
                kept_steps("in_context_labels.keep", keep, max_steps),
                check_every=check_every,
                tokens_per_step=batch_size * context,
            ),
            spec=spec,
            check=lambda _step: _measures(model, task, exams),
        )
    return {"tokens": trained.steps * batch_size * context, **asdict(trained)}


def _exams(task: LabelTask) -> dict[str, Contexts]:
    generator = batch_generator(HELD_OUT_SEED, 0)
    drawn = {"icl": novel_contexts, "iwl": absent_contexts, "icl_swap": swapped_contexts}
    return {name: draw(task, HELD_OUT_ROWS, generator) for name, draw in drawn.items()}


def _measures(model: Any, task: LabelTask, exams: dict[str, Contexts]) -> Measures:
    found: dict[str, Measure] = {}
    for name, contexts in exams.items():
        logits, attention, _ = forward_with_heads(model, contexts.ids)
        scores = logits[:, -1, task.first_label : task.first_id]
        found[name] = measured_mean(label_credit(scores, contexts.answer).numpy())
        if name == "icl":
            found["induction_strength"] = best_head(induction_strength(attention, contexts))
            found["previous_token_strength"] = best_head(previous_strength(attention))
        if name == "icl_swap":
            found["iwl_swap"] = measured_mean(label_credit(scores, contexts.query_class % task.n_labels).numpy())
    n_distinct = N_PAIRS // max(1, task.burstiness)
    return {**found, "chance": Measure(1 / task.n_labels), "context_guess": Measure(1 / n_distinct)}
