"""Attention that a question draws to places of its context, beyond what an empty question in the same place does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.attention import AttentionInputs
from mneme.errors import NotApplicable
from mneme.evidence import Names, evidence_columns, without_outliers
from mneme.model import LanguageModel
from mneme.progress import Progress
from mneme.promptset import Promptset
from mneme.tracing import run_batches

AGAINST = ("blank", "corrupt")


def drawn_attention(
    lm: LanguageModel, prompts: Promptset, spans: Sequence[Names], against: str, progress: Progress
) -> list[Tensor]:
    """Attention to each span when the question asks minus when an empty one does, summed: [item layer head] by span.

    Tokens more than two standard deviations below the mean of their span are dropped before the sum, as QRHead does.
    spans: other names of the evidence, for the same question and context
    against: `blank`: every token of the question is replaced by the token in front of it, the end of the context, which
            asks nothing; `corrupt`: the corrupt prompt asks, which may differ from the clean one in the question only
    Raises: NotApplicable where `corrupt` is asked for and corrupt prompts are missing or differ in the context
    Source: METHODS 2b (calibrated)
    """
    one_of(f"{spans[0].who}.against", against, AGAINST)
    empty = _with_empty_question(prompts, spans[0], against)
    asked, unasked = (_columns(lm, each, spans, progress) for each in (prompts, empty))
    return [without_outliers(one - other) for one, other in zip(asked, unasked, strict=True)]


def _columns(lm: LanguageModel, prompts: Promptset, spans: Sequence[Names], progress: Progress) -> list[Tensor]:
    """Attention of the question to each span, token by token: [item layer head column] by span."""
    n_columns = [int(names.places(prompts).evidence.sum(dim=1).max()) for names in spans]
    batches: list[list[Tensor]] = [[] for _ in spans]
    running: dict[int, list[Tensor]] = {}

    def visit(part: Promptset, layer: AttentionInputs) -> None:
        running[layer.layer] = [
            evidence_columns(layer, names.places(part), n).cpu() for names, n in zip(spans, n_columns, strict=True)
        ]

    def finish(*_: object) -> None:
        by_layer = [running[layer] for layer in sorted(running)]
        for batch, layers in zip(batches, zip(*by_layer, strict=True), strict=True):
            batch.append(torch.stack(layers, dim=1))

    run_batches(lm, prompts, visit, finish, progress)
    return [torch.cat(each) for each in batches]


def _with_empty_question(prompts: Promptset, names: Names, against: str) -> Promptset:
    """The same contexts with a question that asks nothing, or nothing that they answer."""
    places = names.places(prompts)
    if against == "corrupt":
        if prompts.corrupt is None:
            raise NotApplicable(f"{names.who}.against is 'corrupt', and this promptset has no corrupt prompts")
        if bool(((prompts.corrupt.ids != prompts.clean.ids) & places.context).any()):
            raise NotApplicable(
                f"{names.who}.against is 'corrupt', and corrupt prompts differ from clean ones in the context "
                "too: choose blank, or a promptset whose corrupt prompts change the question only"
            )
        return replace(prompts, clean=replace(prompts.corrupt, labels=prompts.clean.labels))
    first, last = places.query
    positions = torch.arange(prompts.clean.ids.shape[1])
    is_query = (positions >= first[:, None]) & (positions <= last[:, None])
    blank = prompts.clean.ids.gather(1, first[:, None] - 1)
    ids = torch.where(is_query, blank, prompts.clean.ids)
    return replace(prompts, clean=replace(prompts.clean, ids=ids))
