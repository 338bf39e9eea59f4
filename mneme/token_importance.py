"""How much each token of a prompt matters to the answer: by attention, by gradients, and by taking tokens away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import stream_attention
from mneme.embedding_changes import Embedded
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

COMPLETE = 0.02  # of the change of the readout, that integrated gradients may miss
_STEPS, _MOST_STEPS = 16, 128


def token_importance(lm: LanguageModel, prompts: Promptset, method: str, progress: Progress = silent) -> Tensor:
    """Importance of each token by the named method, for the logit difference at the last one.

    Shape: [item position], NaN at padding, and in whole rows where a method does not vouch for itself. Unit: fraction
    of attention, or logits (positive = the token speaks for the correct answer).
    Methods: the keys of `METHODS`. Taking a token away means the mean embedding of the vocabulary in its place.
    Source: METHODS 19h; Neely et al. 2022.
    Raises: NotApplicable without correct and wrong answers, and where a method needs attention that is not there.
    """
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("the importance of tokens needs correct and wrong answers, and this promptset has none")
    correct, wrong = prompts.correct_ids, prompts.wrong_ids
    measure = METHODS[method]

    def run(items: slice) -> Tensor:
        part = prompts.clean.select(items)
        given = Embedded.of(lm, part, correct[items], wrong[items])
        found = measure(given).masked_fill(given.batch.padding == 0, torch.nan)
        missing = prompts.clean.ids.shape[1] - found.shape[1]
        return torch.nn.functional.pad(found.double().cpu(), (0, missing), value=torch.nan)

    return in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress)


def attention_mean(given: Embedded) -> Tensor:
    """Attention from the last token, mean over all heads of all layers."""
    return _last_rows(given.lm, given.batch).mean(dim=1)


def attention_max(given: Embedded) -> Tensor:
    """The most attention that any head of any layer pays from the last token."""
    return _last_rows(given.lm, given.batch, by=torch.amax).amax(dim=1)


def rollout(given: Embedded) -> Tensor:
    """Attention followed down the layers from the last token: the product of (A + 1) / 2, A the mean over heads.

    Source: Abnar and Zuidema 2020.
    """
    maps: list[Tensor] = []

    def visit(layer: AttentionInputs) -> None:
        rows = [each.nan_to_num(0.0).mean(dim=1) for _, each in layer.row_chunks()]
        maps.append(torch.cat(rows, dim=1))

    stream_attention(given.lm, given.batch, visit)
    flow = torch.nn.functional.one_hot(given.batch.lengths - 1, given.batch.ids.shape[1]).to(maps[0])[:, None]
    for each in reversed(maps):
        flow = 0.5 * (flow @ each + flow)
    return flow[:, 0]


def gradient_x_input(given: Embedded) -> Tensor:
    """The gradient of the readout at each embedding, times that embedding."""
    return (given.gradient(given.clean) * given.clean).sum(dim=-1)


def integrated_gradients(given: Embedded) -> Tensor:
    """Gradients on the straight way from the blank prompt to this one, times the way; midpoints of equal steps.

    They add up to the change of the readout. Where they miss it by 2 % or more with 16 steps, the steps are doubled, up
    to 128; a prompt that still misses it is NaN. Source: Sundararajan et al. 2017; METHODS 19h.
    """
    with torch.no_grad():
        wanted = given.read(given.clean) - given.read(given.blank.expand_as(given.clean))
    found = torch.full(given.batch.ids.shape, torch.nan, dtype=wanted.dtype, device=wanted.device)
    left = torch.arange(len(wanted), device=wanted.device)
    n_steps = _STEPS
    while n_steps <= _MOST_STEPS and len(left):
        tried = _integrated(given.select(left), n_steps)
        is_complete = (tried.sum(dim=1) - wanted[left]).abs() < COMPLETE * wanted[left].abs()
        found[left[is_complete], : tried.shape[1]] = tried[is_complete]
        left = left[~is_complete]
        n_steps *= 2
    return found


def leave_one_out(given: Embedded) -> Tensor:
    """How far the readout falls without the token, one forward for each position."""
    with torch.no_grad():
        whole = given.read(given.clean)
    places = torch.arange(given.batch.ids.shape[1], device=whole.device)
    without = [given.read_without((places == each).expand(len(whole), -1)) for each in places]
    return whole[:, None] - torch.stack(without, dim=1)


METHODS: Mapping[str, Callable[[Embedded], Tensor]] = MappingProxyType(
    {
        "attention": attention_mean,
        "attention_max": attention_max,
        "rollout": rollout,
        "gradient_x_input": gradient_x_input,
        "integrated_gradients": integrated_gradients,
        "leave_one_out": leave_one_out,
    }
)


def _integrated(given: Embedded, n_steps: int) -> Tensor:
    way = given.clean - given.blank
    total = torch.zeros_like(way)
    for step in range(n_steps):
        total += given.gradient(given.blank + way * ((step + 0.5) / n_steps))
    return (total * way).sum(dim=-1) / n_steps


def _last_rows(lm: LanguageModel, batch: Batch, by: Callable[..., Tensor] = torch.mean) -> Tensor:
    """Attention from the last token, over the heads of each layer taken together by `by`: [item layer key]."""
    rows: list[Tensor] = []

    def visit(layer: AttentionInputs) -> None:
        rows.append(by(layer.rows(batch.lengths[:, None] - 1)[:, :, 0], dim=1))

    stream_attention(lm, batch, visit)
    return torch.stack(rows, dim=1)
