"""Attention to the evidence that a question draws and an empty question in the same place does not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.attention import AttentionInputs
from mneme.errors import NotApplicable
from mneme.evidence import EVIDENCE, QUERY, Names, Span, evidence_columns, without_outliers
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.tracing import run_batches

AGAINST = ("blank", "corrupt")


@probe(
    level="head",
    unit="fraction of attention",
    low=-1.0,
    high=1.0,
    source="Zhang et al. 2025 (QRHead); METHODS 2b",
)
def evidence_calibrated(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    evidence: Span = EVIDENCE,
    query: Span = QUERY,
    context: Span | None = None,
    against: str = "blank",
) -> Tensor:
    """Attention of the question to each token of the evidence, minus that of an empty question; summed.

    What a head gives those places whatever is asked (position, sinks, frequent words) cancels. Tokens more than two
    standard deviations below the mean of their evidence are dropped before the sum, as QRHead does.
    Shape:  [item layer head]
    Unit:   fraction of attention
    Range:  -1 .. 1; 0 = the question does not matter. NaN = the evidence lies outside the layer's window
    against: `blank`: every token of the question is replaced by the token in front of it, the end of the context, which
            asks nothing; `corrupt`: the corrupt prompt asks, which may differ from the clean one in the question only
            (`needle` with `corrupt: key`, where the evidence of what is asked is missing)
    evidence, query, context: as `evidence_mass`, which raises the same
    Raises: NotApplicable also where `corrupt` is asked for and corrupt prompts are missing or differ in the context
    Source: METHODS 2b (calibrated); differs from it in: the empty question is made of tokens and as long as the
            question, where QRHead says 'N/A', so that both stand in the same places
    """
    one_of("evidence_calibrated.against", against, AGAINST)
    names = Names("evidence_calibrated", evidence, query, context)
    places = names.places(prompts)
    n_columns = int(places.evidence.sum(dim=1).max())
    questions = (prompts, _with_empty_question(prompts, names, against))
    asked, empty = (_columns(lm, each, names, n_columns, progress) for each in questions)
    return without_outliers(asked - empty)


def _columns(lm: LanguageModel, prompts: Promptset, names: Names, n_columns: int, progress: Progress) -> Tensor:
    """Attention of each question to its evidence, token by token: [item layer head column]."""
    batches: list[Tensor] = []
    running: dict[int, Tensor] = {}

    def visit(part: Promptset, layer: AttentionInputs) -> None:
        running[layer.layer] = evidence_columns(layer, names.places(part), n_columns).cpu()

    def finish(*_: object) -> None:
        batches.append(torch.stack([running[layer] for layer in sorted(running)], dim=1))

    run_batches(lm, prompts, visit, finish, progress)
    return torch.cat(batches)


def _with_empty_question(prompts: Promptset, names: Names, against: str) -> Promptset:
    """The same contexts with a question that asks nothing, or nothing that they answer."""
    places = names.places(prompts)
    if against == "corrupt":
        if prompts.corrupt is None:
            raise NotApplicable("evidence_calibrated.against is 'corrupt', and this promptset has no corrupt prompts")
        if bool(((prompts.corrupt.ids != prompts.clean.ids) & places.context).any()):
            raise NotApplicable(
                "evidence_calibrated.against is 'corrupt', and corrupt prompts differ from clean ones in the context "
                "too: choose blank, or a promptset whose corrupt prompts change the question only"
            )
        return replace(prompts, clean=replace(prompts.corrupt, labels=prompts.clean.labels))
    first, last = places.query
    positions = torch.arange(prompts.clean.ids.shape[1])
    is_query = (positions >= first[:, None]) & (positions <= last[:, None])
    blank = prompts.clean.ids.gather(1, first[:, None] - 1)
    ids = torch.where(is_query, blank, prompts.clean.ids)
    return replace(prompts, clean=replace(prompts.clean, ids=ids))
