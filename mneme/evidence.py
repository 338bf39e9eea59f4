"""Attention from the tokens of a question to those that answer it: which tokens are what, and how much goes where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.attention import AttentionInputs, visible_keys
from mneme.attention_shares import NOTHING_LEFT
from mneme.errors import BadInput, NotApplicable
from mneme.promptset import Promptset

Span = Sequence[str]
EVIDENCE = ("key", "value")
QUERY = ("question_first", "question")
GOLDS = ("told", "shuffled")


@dataclass(frozen=True)
class Names:
    """Who asks, and the first and the last label of the evidence, of the question and of the context.

    context: None = the tokens in front of the question. gold: `told`, or `shuffled`: the evidence moved round the
    context by as many tokens as a hash of the prompt's own tokens says, so that the digits depend on nothing else.
    """

    who: str
    evidence: Span = EVIDENCE
    query: Span = QUERY
    context: Span | None = None
    gold: str = "told"

    def places(self, prompts: Promptset) -> Places:
        """The named tokens of some prompts.

        The sink, position 0, is never context (METHODS 2b).
        Raises: NotApplicable where the promptset lacks a label; BadInput for a span that ends before it begins, a
        question that overlaps the evidence or does not stand behind the context, and evidence that lies outside the
        context or is the whole of it.
        """
        one_of(f"{self.who}.gold", self.gold, GOLDS)
        evidence, query = self._ends(prompts, "evidence", self.evidence), self._ends(prompts, "query", self.query)
        if self.context is None:
            context = torch.ones_like(query[0]), query[0] - 1
        else:
            context = self._ends(prompts, "context", self.context)
            context = context[0].clamp(min=1), context[1]
        self._check(evidence, query, context)
        n_positions = prompts.clean.ids.shape[1]
        found = Places(_inside(evidence, n_positions), query, _inside(context, n_positions))
        return found if self.gold == "told" else _shuffled(found, prompts.clean.ids)

    def _ends(self, prompts: Promptset, name: str, span: Span) -> tuple[Tensor, Tensor]:
        """Positions of the first and of the last token of a span: two of [item]."""
        place = f"{self.who}.{name}"
        if isinstance(span, str) or len(span) != 2 or not all(isinstance(each, str) for each in span):
            raise BadInput(f"{place} is {span!r}: give the labels of its first and last token, such as [key, value]")
        labels = prompts.clean.labels
        for label in span:
            if label not in labels:
                raise NotApplicable(
                    f"{place} names the label '{label}', which this promptset lacks; it has {', '.join(sorted(labels))}"
                )
        first, last = (labels[label] for label in span)
        self._refuse(first > last, f"{place}: '{span[1]}' stands before '{span[0]}'", "name the first label first")
        return first, last

    def _check(self, evidence: tuple[Tensor, ...], query: tuple[Tensor, ...], context: tuple[Tensor, ...]) -> None:
        told, asked = (f"'{span[0]}' .. '{span[1]}'" for span in (self.evidence, self.query))
        self._refuse(
            (evidence[0] <= query[1]) & (query[0] <= evidence[1]),
            f"{self.who}: the question {asked} overlaps the evidence {told}",
            "name other labels",
        )
        self._refuse(
            (query[0] <= context[1]) | (query[0] < evidence[0]) | (context[1] < context[0]),
            f"{self.who}: the question {asked} stands before the end of its context, where a causal model cannot "
            "have read all of it",
            "use prompts whose question comes last",
        )
        self._refuse(
            (evidence[0] < context[0]) | (evidence[1] > context[1]),
            f"{self.who}: the evidence {told} lies outside the context (the first token is never part of it)",
            "name labels inside it",
        )
        self._refuse(
            (evidence[0] == context[0]) & (evidence[1] == context[1]),
            f"{self.who}: the evidence {told} is the whole context",
            "name a part of it",
        )

    def _refuse(self, is_wrong: Tensor, fault: str, mend: str) -> None:
        if bool(is_wrong.any()):
            raise BadInput(f"{fault} in prompt {int(is_wrong.nonzero()[0])}: {mend}")


@dataclass(frozen=True)
class Places:
    """Tokens of some prompts: evidence, context bool [item position]; query: first and last position, two of [item]."""

    evidence: Tensor
    query: tuple[Tensor, Tensor]
    context: Tensor

    def query_index(self) -> tuple[Tensor, Tensor]:
        """Positions of the question [item query], and which are real: shorter questions repeat their last token."""
        first, last = self.query
        index = first[:, None] + torch.arange(int((last - first).max()) + 1)
        return torch.minimum(index, last[:, None]), index <= last[:, None]


@dataclass(frozen=True)
class Masses:
    """Attention from a question to its evidence and to the whole context, mean over the question's tokens: [item head].

    n_evidence, n_context [item]: how many tokens these are, of the context those that the question sees. NaN where the
    evidence lies outside the window of the layer for every token of the question.
    """

    evidence: Tensor
    context: Tensor
    n_evidence: Tensor
    n_context: Tensor

    def share(self) -> Tensor:
        """Part of the attention to the context that goes to the evidence; NaN where the context gets none."""
        share = self.evidence / self.context
        return torch.where(self.context > NOTHING_LEFT, share, torch.nan).clamp(max=1.0)

    def enrichment(self) -> Tensor:
        """The share over that of attention which is spread evenly over the context."""
        return self.share() * (self.n_context / self.n_evidence)[:, None]


def masses_of(layer: AttentionInputs, places: Places) -> Masses:
    """The attention of one layer, by the named tokens (METHODS 2b).

    A token of the question that cannot see all evidence through the layer's window leaves the mean.
    """
    index, visible, weights = _seen(layer, places)
    rows = layer.rows(index)
    kinds = torch.stack([places.evidence, places.context], dim=2).to(rows)
    means = ((rows @ kinds[:, None]) * weights.to(rows)[:, None, :, None]).sum(dim=2)
    n_context = ((visible & places.context[:, None]).sum(dim=2) * weights).sum(dim=1)
    return Masses(means[..., 0], means[..., 1], places.evidence.sum(dim=1).to(rows), n_context.to(rows))


def evidence_columns(layer: AttentionInputs, places: Places, n_columns: int) -> Tensor:
    """Attention from the question to each token of the evidence: [item head column], NaN beyond an item's evidence.

    Mean over the question's tokens; NaN as in `Masses` where the evidence lies outside the window.
    """
    index, _, weights = _seen(layer, places)
    rows = layer.rows(index)
    means = (rows * weights.to(rows)[:, None, :, None]).sum(dim=2)
    columns = torch.argsort((~places.evidence).to(torch.int8), dim=1, stable=True)[:, :n_columns]
    is_there = torch.arange(n_columns) < places.evidence.sum(dim=1)[:, None]
    taken = means.gather(2, columns.to(rows.device)[:, None].expand(-1, layer.n_heads, -1))
    return taken.masked_fill(~is_there.to(rows.device)[:, None], torch.nan)


def without_outliers(scores: Tensor) -> Tensor:
    """Sum over the last axis of what is not more than two standard deviations below its mean (QRHead); NaN = absent.

    Nothing is dropped of fewer than six tokens: none of them can lie so far below.
    """
    present = ~scores.isnan()
    count = present.sum(dim=-1, keepdim=True)
    values = scores.nan_to_num(0.0)
    mean = values.sum(dim=-1, keepdim=True) / count
    spread = torch.where(present, (values - mean) ** 2, 0.0).sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    kept = present & (values >= mean - 2 * spread.sqrt())
    return torch.where(kept, values, 0.0).sum(dim=-1).masked_fill(~present.any(dim=-1), torch.nan)


def _inside(ends: tuple[Tensor, Tensor], n_positions: int) -> Tensor:
    positions = torch.arange(n_positions)
    return (positions >= ends[0][:, None]) & (positions <= ends[1][:, None])


def _seen(layer: AttentionInputs, places: Places) -> tuple[Tensor, Tensor, Tensor]:
    """The question's tokens [item query], the keys each sees [item query key], its weight in the mean [item query].

    Tokens that see all of the evidence share the weight; NaN where none does.
    """
    index, is_query = places.query_index()
    keys = torch.arange(layer.n_keys)
    visible = visible_keys(index[:, :, None], keys, layer.window)
    counted = is_query & (visible | ~places.evidence[:, None]).all(dim=2)
    return index, visible, counted / counted.sum(dim=1, keepdim=True)


def _shuffled(places: Places, ids: Tensor) -> Places:
    """The evidence moved round the context; over all prompts every place is as likely, so that enrichment is 1."""
    moved = torch.zeros_like(places.evidence)
    for item, context in enumerate(places.context):
        inside = context.nonzero()[:, 0]
        digest = hashlib.sha256(ids[item, inside].numpy().tobytes()).digest()
        shift = int.from_bytes(digest[:8]) % len(inside)
        moved[item, inside] = places.evidence[item, inside].roll(shift)
    return replace(places, evidence=moved)
