"""Readouts: logits to one number per prompt, computed from the positions and vocabulary columns that they read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.unembedding import row_chunks, widened

RowValue = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Readout:
    """A number per prompt: the mean, over the positions it reads, of a value of the logits there.

    positions: None = the last real position, or bool [item position]; columns: [item column] int64, the vocabulary
    columns it reads, or None = all. value: (logits [row column|vocab] in float32 at least, item [row], position
    [row]) -> [row]. Calling it with logits [item vocab] of the last position gives the number when it reads only that.
    """

    name: str
    unit: str
    value: RowValue
    positions: Tensor | None = None
    columns: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The readout of logits [item vocab] at the last real position: [item]."""
        if self.positions is not None:
            raise BadInput(
                f"readout {self.name} reads several positions: give it to an intervention, not one row of logits"
            )
        items = torch.arange(len(logits), device=logits.device)
        chosen = logits if self.columns is None else logits.gather(1, self.columns.to(logits.device))
        return checked(self, self.value(widened(chosen), items, torch.zeros_like(items)), len(logits))


def as_readout(readout: Readout | Callable[[Tensor], Tensor]) -> Readout:
    """A Readout, from one or from any function of the last position's logits [item vocab] -> [item]."""
    if isinstance(readout, Readout):
        return readout
    name = getattr(readout, "__name__", "readout")
    return Readout(name, "", lambda logits, _, __: readout(logits))


def logit_difference(correct_ids: Tensor, wrong_ids: Tensor) -> Readout:
    """Mean logit of the correct answers minus mean logit of the wrong ones, at the last real position; logits.

    Shape: ids [item] or [item answer] int64, -1 = no further answer. Range: unbounded. Source: METHODS 3; Wang 2022.
    Raises: BadInput when an item has no answer on a side.
    """
    correct, wrong = answers_of(correct_ids, "correct"), answers_of(wrong_ids, "wrong")
    if len(correct) != len(wrong):
        raise BadInput(f"{len(correct)} correct but {len(wrong)} wrong answers: give both for every prompt")
    weights = torch.cat([mean_weights(correct), -mean_weights(wrong)], dim=1)
    columns = torch.cat([correct, wrong], dim=1).clamp_min(0)

    def value(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        return (logits * weights.to(logits)[items]).sum(dim=1)

    return Readout("logit_difference", "logits", value, columns=columns)


def answer_probability(correct_ids: Tensor) -> Readout:
    """Probability of the correct answers together at the last real position, 0 .. 1.

    Shape: ids [item] or [item answer] int64, -1 = no further answer. Source: METHODS 3.
    """
    correct = answers_of(correct_ids, "correct")

    def value(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        answers = correct.to(logits.device)[items]
        chosen = torch.softmax(logits, dim=1).gather(1, answers.clamp_min(0))
        return (chosen * (answers >= 0)).sum(dim=1)

    return Readout("answer_probability", "probability", value)


def log_probability(batch: Batch, mask: Tensor) -> Readout:
    """Mean log-probability of the true next token over the masked positions, nats, at most 0.

    Shape: mask [item position] bool; position t is scored by the token at t + 1.
    Raises: BadInput when an item has no masked position, or one without a next token.
    """
    if mask.shape != batch.ids.shape or mask.dtype != torch.bool:
        raise BadInput(f"mask must be bool {tuple(batch.ids.shape)}, like the ids, not {tuple(mask.shape)}")
    has_next = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.lengths[:, None] - 1
    if not bool(mask.any(dim=1).all()) or bool((mask & ~has_next.to(mask.device)).any()):
        raise BadInput("mask must name at least one position per prompt, none of them the last or padding")

    def value(logits: Tensor, items: Tensor, positions: Tensor) -> Tensor:
        target = batch.ids.to(logits.device)[items, positions + 1]
        return -F.cross_entropy(logits, target, reduction="none")

    return Readout("log_probability", "nats", value, positions=mask)


@dataclass(frozen=True)
class ReadRows:
    """Where a readout reads: positions [item read] int64, padded by repeating; is_read [item read] bool."""

    positions: Tensor
    is_read: Tensor

    @classmethod
    def of(cls, readout: Readout, batch: Batch) -> ReadRows:
        """The rows of a readout over a batch; raises BadInput when they do not fit it."""
        if readout.columns is not None and len(readout.columns) != len(batch):
            raise BadInput(f"readout {readout.name} has answers for {len(readout.columns)} prompts, not {len(batch)}")
        if readout.positions is None:
            last = batch.lengths[:, None] - 1
            return cls(last, torch.ones_like(last, dtype=torch.bool))
        mask = readout.positions.to(batch.ids.device)
        if mask.shape != batch.ids.shape:
            raise BadInput(f"readout {readout.name} reads positions {tuple(mask.shape)}, not {tuple(batch.ids.shape)}")
        counts = mask.sum(dim=1)
        order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, : int(counts.max())]
        is_read = torch.arange(order.shape[1], device=order.device) < counts[:, None]
        return cls(torch.where(is_read, order, order[:, :1]), is_read)


def read_hidden(lm: LanguageModel, readout: Readout, hidden: Tensor, items: Tensor, where: ReadRows) -> Tensor:
    """The readout of final hidden states at the read rows: hidden [unit read width], items [unit] -> [unit].

    unit is any stack of runs, `items` saying which prompt each is of. Differentiable; logits come in chunks.
    """
    is_read = where.is_read[items]
    units, places = torch.nonzero(is_read, as_tuple=True)
    row_items, row_positions = items[units], where.positions[items][units, places]
    rows = hidden[units, places]
    columns = None if readout.columns is None else readout.columns.to(rows.device)
    parts = []
    for some in row_chunks(len(rows), lm.vocab_size if columns is None else columns.shape[1] * lm.d_model):
        chosen = None if columns is None else columns[row_items[some]]
        logits = widened(lm.backbone.unembed(rows[some], chosen))
        parts.append(readout.value(logits, row_items[some], row_positions[some]))
    values = torch.cat(parts)
    if values.shape != row_items.shape:
        raise BadInput(f"readout {readout.name} returns {tuple(values.shape)}, not one number per row: mend its value")
    total = torch.zeros(len(hidden), dtype=values.dtype, device=values.device).index_add(0, units, values)
    return checked(readout, total / is_read.sum(dim=1), len(hidden))


def take_rows(hidden: Tensor, items: Tensor, where: ReadRows) -> Tensor:
    """Rows that a readout reads of hidden [unit position width], of prompts `items` [unit]: [unit read width]."""
    index = where.positions[items][:, :, None].expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, index)


def checked(readout: Readout, values: Tensor, n_items: int) -> Tensor:
    """The values [item], refused with BadInput when their shape is wrong or one is not finite."""
    if values.shape != (n_items,):
        raise BadInput(
            f"readout {readout.name} returns shape {tuple(values.shape)}, not one number per prompt ({n_items})"
        )
    if not bool(torch.isfinite(values).all()):
        raise BadInput(f"readout {readout.name} returns NaN or infinity: check its answers and the model's logits")
    return values


def answers_of(ids: Tensor, side: str) -> Tensor:
    """Answers as [item answer] int64, -1 = no further one; raises BadInput for an item without any."""
    answers = ids[:, None] if ids.ndim == 1 else ids
    if answers.ndim != 2 or answers.dtype != torch.int64 or not bool((answers >= 0).any(dim=1).all()):
        raise BadInput(f"{side} answers must be int64 [item] or [item answer] with at least one id per prompt")
    return answers


def mean_weights(answers: Tensor) -> Tensor:
    """Weights of a mean over each item's answers: [item answer] float64, 0 where there is no further one."""
    present = (answers >= 0).double()
    return present / present.sum(dim=1, keepdim=True)
