"""Knocks heads out of a model: their output becomes its mean over reference prompts, one of these prompts', or 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.errors import BadInput
from mneme.head_changes import check_sets
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.patching import position_of
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout, ReadRows, read_hidden, take_rows

KINDS = ("resample", "zero")
Node = tuple[int, int, str]  # a head at a labelled position; an empty label = at all positions


@dataclass(frozen=True)
class Kept:
    """Which heads keep what they write, and where: `nodes` and nothing else, or, where `is_all_but`, all but them."""

    nodes: tuple[Node, ...]
    is_all_but: bool = False

    def without(self, removed: Sequence[Node]) -> Kept:
        """The same with some nodes knocked out in addition."""
        if self.is_all_but:
            return Kept((*self.nodes, *(each for each in removed if each not in self.nodes)), is_all_but=True)
        return Kept(tuple(each for each in self.nodes if each not in removed))


WHOLE = Kept((), is_all_but=True)
EMPTY = Kept(())


@dataclass(frozen=True)
class TemplateMeans:
    """Z of every head, mean over the reference prompts of a template.

    Shape: template [item] int64, the template of each prompt; layers: for each layer [template position head width].
    """

    template: Tensor
    layers: tuple[Tensor, ...]

    def select(self, items: Tensor | slice) -> TemplateMeans:
        """The same means for some of the prompts."""
        return TemplateMeans(self.template[items], self.layers)


def templates_of(prompts: Promptset, labels: Sequence[str]) -> Tensor:
    """Prompts that are worded alike have the same number: one cluster, length and place of every label: [item] int64.

    Raises: BadInput for a label that the prompts do not have.
    """
    places = [position_of(prompts.clean, label) for label in labels]
    clusters = torch.zeros(len(prompts), dtype=torch.int64) if prompts.clusters is None else prompts.clusters
    rows = torch.stack([clusters, prompts.clean.lengths, *places], dim=1)
    numbers = {tuple(row): number for number, row in enumerate(sorted(set(map(tuple, rows.tolist()))))}
    return torch.tensor([numbers[tuple(row)] for row in rows.tolist()], dtype=torch.int64)


@torch.no_grad()
def template_means(lm: LanguageModel, reference: Batch, template: Tensor) -> TemplateMeans:
    """Mean Z over the reference prompts of each template, per position; prompts of a template have one length.

    A template of one prompt has that prompt's own Z for a mean. Shape: template [item] int64.
    Source: METHODS 5a (knock-out to the mean over ABC, per template and position).
    Raises: BadInput where a template has prompts of several lengths.
    """
    batch, n_templates = lm.batch(reference), int(template.max()) + 1
    template = template.to(batch.ids.device)
    for each in range(n_templates):
        if len(set(batch.lengths[template == each].tolist())) > 1:
            raise BadInput("prompts of one template differ in length: tell templates apart by length too")
    count = torch.bincount(template, minlength=n_templates).clamp(min=1)[:, None, None, None]
    totals: dict[int, Tensor] = {}

    def run(some: slice) -> Tensor:
        part = batch.select(some)

        def add(call: AttentionCall) -> Tensor:
            z = call.compute()
            blank = torch.zeros(n_templates, batch.ids.shape[1], *z.shape[2:], dtype=torch.float64, device=z.device)
            totals.setdefault(call.layer, blank)[:, : z.shape[1]].index_add_(0, template[some], z.double())
            return z

        with handled(lm.attention_modules, add):
            lm.backbone.hidden(part.ids)
        return torch.zeros(len(part))

    in_batches(lm, len(batch), batch.ids.shape[1], run)
    return TemplateMeans(template, tuple((totals[layer] / count).to(lm.dtype) for layer in range(lm.n_layers)))


def instead_of_heads(lm: LanguageModel, reference: Batch, kind: str) -> TemplateMeans:
    """What heads that are knocked out write in the place of a template's mean.

    kind: `resample`, what the head writes on the prompt's own reference prompt; `zero`, nothing.
    Source: METHODS 5a (ablation variants). Raises: BadInput for another kind.
    """
    one_of("kind", kind, KINDS)
    own = template_means(lm, reference, torch.arange(len(reference)))
    return own if kind == "resample" else TemplateMeans(own.template, tuple(torch.zeros_like(z) for z in own.layers))


@torch.no_grad()
def knock_out(
    lm: LanguageModel,
    batch: Batch,
    readout: Readout,
    circuits: Sequence[Kept],
    means: TemplateMeans,
    progress: Progress = silent,
) -> Tensor:
    """The readout of each prompt when a circuit's heads alone keep what they write, for every circuit: [item circuit].

    All other heads, and those of the circuit at other positions, write what `means` holds for their template and
    position. MLPs and norms are recomputed. Unit: the readout's. Source: METHODS 5a; Wang et al. 2022.
    Raises: BadInput for heads or labels that do not exist, and a bad readout.
    """
    batch = lm.batch(batch)
    check_sets(lm, [[(layer, head) for layer, head, _ in each.nodes] for each in circuits])
    where = ReadRows.of(readout, batch)
    found = []
    for done, circuit in enumerate(circuits):
        keeps = keep_mask(lm, batch, circuit)

        def run(some: slice, keeps: Tensor = keeps) -> Tensor:
            items = torch.arange(some.start, some.stop, device=batch.ids.device)
            hidden = _run(lm, batch.select(some), keeps[:, some], means.select(some))
            return read_hidden(lm, readout, take_rows(hidden, items, where), items, where)

        found.append(in_batches(lm, len(batch), batch.ids.shape[1], run))
        progress(done + 1, len(circuits))
    return torch.stack(found, dim=1).cpu()


def keep_mask(lm: LanguageModel, batch: Batch, kept: Kept) -> Tensor:
    """Which heads keep what they write: [layer item position head] bool."""
    shape = (lm.n_layers, *batch.ids.shape, lm.n_heads)
    mask = torch.zeros(shape, dtype=torch.bool, device=batch.ids.device)
    items = torch.arange(len(batch), device=batch.ids.device)
    for layer, head, label in kept.nodes:
        if label:
            mask[layer, items, position_of(batch, label), head] = True
        else:
            mask[layer, :, :, head] = True
    return ~mask if kept.is_all_but else mask


def _run(lm: LanguageModel, part: Batch, keeps: Tensor, means: TemplateMeans) -> Tensor:
    """Final hidden states of one batch: [item position d_model]."""
    n_positions = part.ids.shape[1]

    def replace(call: AttentionCall) -> Tensor:
        z, keep = call.compute(), keeps[call.layer]
        if bool(keep.all()):
            return z
        return torch.where(keep[:, :n_positions, :, None], z, means.layers[call.layer][means.template, :n_positions])

    with handled(lm.attention_modules, replace):
        return lm.backbone.hidden(part.ids)
