"""Reference models trained on the micro-world: small languages with the behaviors that the probes ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.arguments import number_between, whole_number
from mneme.errors import BadInput
from mneme.microworld.documents import Document, Library, rows_by_length, world_words
from mneme.microworld.exam import Exam
from mneme.microworld.lessons import Lessons
from mneme.microworld.shapes import new_model
from mneme.microworld.tokenizer import word_tokenizer
from mneme.promptset import Vocabulary
from mneme.recipe import Workshop, recipe
from mneme.steps import LOG_SPACED, kept_steps
from mneme.training import Schedule, train_model

WARM_UP_STEPS = 100
EXAM_ITEMS = 64
LEAST_RATE = 0.02
LATER_HIDDEN = 0.3
FALLING = 0.4
_EMBEDDINGS = ("wte", "wpe", "embed", "lm_head")


@dataclass(frozen=True)
class _Step:
    """What one step shows of the micro-world, and what counts in it."""

    lessons: Lessons
    tokens: int
    other_weight: float
    seed: int


@recipe()
def micro_world(  # noqa: PLR0913  a recipe's keywords are what its YAML may set
    workshop: Workshop,
    *,
    seed: int,
    shape: str = "gpt2",
    n_layers: int = 4,
    n_heads: int = 8,
    width: int = 128,
    context: int = 512,
    max_steps: int = 2300,
    copying_steps: int = 400,
    recalling_steps: int = 500,
    tokens_per_step: int = 2048,
    hidden_rate: float = 0.02,
    rate: float = 3e-3,
    other_weight: float = 0.02,
    keep: Sequence[int] | str = LOG_SPACED,
) -> dict[str, Any]:
    """Train a small model of a shape on documents of the micro-world, and save it with its tokenizer.

    Shapes: `gpt2`, `llama`, `neox`, `lstm`, `mamba2` (mneme/microworld/shapes.py). `copying_steps`, `recalling_steps`
    and what is left of `max_steps` go to the three lessons of mneme/microworld/lessons.py. From the second on, the n
    tokens of a document that answer something count 1 / sqrt(n) each in the loss, the others `other_weight`. Hidden
    matrices are trained by Muon at `hidden_rate`, the rest by AdamW at `rate` (0 as `hidden_rate`: all by AdamW). Each
    lesson starts with 100 steps of warm-up; after the first, Muon's rate is three tenths of what it was, since it would
    undo what was learnt; over the last two fifths of the last lesson both fall to a fiftieth. `max_steps` 0 saves the
    untrained model. The documents of step s depend on (seed, s) alone.
    Held-out accuracies of all behaviors are measured on the way.
    Returns: steps, tokens, seconds, final loss (nats a token, weighted), the accuracies of the last check (0 .. 1).
    Raises: BadInput for sizes that do not fit together, and when training diverges.
    """
    whole_number("micro_world.context", context, 128)
    whole_number("micro_world.max_steps", max_steps, 0)
    whole_number("micro_world.tokens_per_step", tokens_per_step, context)
    number_between("micro_world.other_weight", other_weight, 0, 1.0001)
    lessons = _lessons(copying_steps, recalling_steps, max_steps)
    sizes = {"shape": shape, "n_layers": n_layers, "n_heads": n_heads, "width": width, "context": context}
    rates = {"hidden_rate": hidden_rate, "rate": rate, "max_steps": max_steps}
    step = _Step(lessons, tokens_per_step, other_weight, seed)
    spec = {"recipe": "micro_world", **sizes, **rates, **asdict(step)}
    tokenizer = word_tokenizer(world_words(), context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(shape, len(tokenizer), context, width, n_layers, n_heads)
        if max_steps == 0:
            model.save_pretrained(workshop.folder)
            tokenizer.save_pretrained(workshop.folder)
            return {"steps": 0, "tokens": 0}
        exam = Exam(_vocabulary(tokenizer, context), EXAM_ITEMS)
        trained = train_model(
            workshop,
            model,
            _optimizers(model, hidden_rate, rate),
            partial(_loss, model, Library(tokenizer.get_vocab(), context - 1), step),
            schedule=Schedule(
                max_steps,
                kept_steps("micro_world.keep", keep, max_steps),
                check_every=250,
                save_every=250,
                tokens_per_step=tokens_per_step,
                changes=(lessons.copying_ends, lessons.recalling_ends),
            ),
            spec=spec,
            check=lambda _step: exam.measure(model),
            factor=partial(_factors, lessons, max_steps, bool(hidden_rate)),
            tokenizer=tokenizer,
        )
    return {"tokens": trained.steps * tokens_per_step, **asdict(trained)}


def _lessons(copying_steps: int, recalling_steps: int, max_steps: int) -> Lessons:
    whole_number("micro_world.copying_steps", copying_steps, 0)
    whole_number("micro_world.recalling_steps", recalling_steps, 0)
    if 0 < max_steps < copying_steps + recalling_steps:
        raise BadInput(
            f"micro_world: max_steps is {max_steps}, and the first two lessons take {copying_steps + recalling_steps}: "
            "raise it, or lower copying_steps or recalling_steps"
        )
    return Lessons(copying_steps, copying_steps + recalling_steps)


def _vocabulary(tokenizer: Any, context: int) -> Vocabulary:
    return Vocabulary(
        size=len(tokenizer),
        context=context,
        bos_mode="native",
        first_id=int(tokenizer.bos_token_id),
        special_ids=frozenset(tokenizer.all_special_ids),
        tokenizer=tokenizer,
    )


def _optimizers(model: Any, hidden_rate: float, rate: float) -> list[torch.optim.Optimizer]:
    hidden = [
        each
        for name, each in model.named_parameters()
        if each.ndim == 2 and hidden_rate and not any(part in name for part in _EMBEDDINGS)
    ]
    known = {id(each) for each in hidden}
    rest = [each for each in model.parameters() if id(each) not in known]
    adamw = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=hidden_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original")
    return [adamw, muon]


def _factors(lessons: Lessons, max_steps: int, has_hidden: bool, step: int) -> list[float]:
    """Shares of the full learning rates at a step: of AdamW and, if hidden matrices are trained apart, of Muon."""
    begun, last = lessons.first_step(step), lessons.recalling_ends
    left = (max_steps - step) / (FALLING * max(1, max_steps - last)) if step > last else 1.0
    share = min(1.0, (step - begun) / WARM_UP_STEPS, max(LEAST_RATE, left))
    return [share, share if lessons.is_copying(step) else LATER_HIDDEN * share][: 1 + has_hidden]


def _loss(model: Any, library: Library, what: _Step, step: int) -> Tensor:
    """Mean loss of a step's documents, nats a token, weighted."""
    rng = np.random.default_rng((what.seed, step))
    documents: list[Document] = []
    n_tokens = 0
    while n_tokens < what.tokens:
        documents.append(what.lessons.draw(library, rng, step))
        n_tokens += len(documents[-1].ids)
    other_weight = 0.0 if what.lessons.is_copying(step) else what.other_weight
    batches = [_padded(group, other_weight) for group in rows_by_length(documents)]
    losses = [_weighted(model, ids, weights) for ids, weights in batches]
    return torch.stack(losses).sum() / sum(float(weights.sum()) for _, weights in batches)


def _weighted(model: Any, ids: Tensor, weights: Tensor) -> Tensor:
    logits = model(ids[:, :-1]).logits
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


def _padded(documents: Sequence[Document], other_weight: float) -> tuple[Tensor, Tensor]:
    """Ids [item position] behind the first token, and weights of the next tokens [item position - 1], 0 in padding."""
    length = max(len(each.ids) for each in documents)
    ids = torch.ones(len(documents), length + 1, dtype=torch.int64)
    ids[:, 0] = 0
    weights = torch.zeros(len(documents), length)
    for row, each in enumerate(documents):
        ids[row, 1 : len(each.ids) + 1] = torch.tensor(each.ids)
        # a long list would drown all other behaviors if each of its answers counted in full
        answer_weight = max(1, sum(each.is_answer)) ** -0.5
        weights[row, : len(each.ids)] = torch.where(torch.tensor(each.is_answer), answer_weight, other_weight)
    return ids, weights
