"""In-context against in-weights classification (METHODS 16, Task R), in tokens with fixed embeddings.

A context is a first token, pairs of an item and its label, and a query item whose label is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import number_between, whole_number
from mneme.errors import BadInput
from mneme.training import Measure, measured_mean

N_PAIRS = 8


@dataclass(frozen=True)
class LabelTask:
    """Sizes of the task. Items come first in the vocabulary (class by class), then the labels, then the first token.

    n_classes are trained, as many `n_novel` never; each has `n_exemplars` items; class k has label k mod n_labels.
    alpha: classes are drawn with weight rank^-alpha; p_burst: share of contexts in which the query's class stands
    `burstiness` times, and other classes as often; burstiness 0: no context is bursty; noise: eps, within a class.
    """

    n_classes: int
    n_novel: int
    n_exemplars: int
    n_labels: int
    p_burst: float
    burstiness: int
    alpha: float
    noise: float

    def __post_init__(self) -> None:
        whole_number("n_labels", self.n_labels, N_PAIRS)  # a label of its own for each class of a context
        whole_number("n_classes", self.n_classes, max(N_PAIRS, self.n_labels))
        whole_number("n_novel", self.n_novel, N_PAIRS)
        whole_number("n_exemplars", self.n_exemplars, 1)
        whole_number("burstiness", self.burstiness, 0, N_PAIRS // 2)
        number_between("p_burst", self.p_burst, 0, 1.0001)
        number_between("alpha", self.alpha, 0, 10)
        number_between("noise", self.noise, 0, 100)
        if self.burstiness and N_PAIRS % self.burstiness:
            raise BadInput(f"burstiness {self.burstiness} does not divide the {N_PAIRS} pairs: choose 0, 1, 2 or 4")

    @property
    def first_label(self) -> int:
        """Id of label 0."""
        return (self.n_classes + self.n_novel) * self.n_exemplars

    @property
    def first_id(self) -> int:
        """Id of the first token, the last of the vocabulary."""
        return self.first_label + self.n_labels

    def embeddings(self, width: int, generator: torch.Generator) -> Tensor:
        """Vectors [token width]: items (mu + eps eta) / sqrt(1 + eps^2) around their class, labels at random.

        All from N(0, 1/width), so that their norms are about 1; the first token too.
        """
        centres = torch.randn(self.n_classes + self.n_novel, 1, width, generator=generator)
        noises = torch.randn(self.n_classes + self.n_novel, self.n_exemplars, width, generator=generator)
        items = (centres + self.noise * noises) / math.sqrt(1 + self.noise**2)
        others = torch.randn(self.n_labels + 1, width, generator=generator)
        return torch.cat([items.flatten(0, 1), others]) / math.sqrt(width)


@dataclass(frozen=True)
class Contexts:
    """ids [item position], the right label of each query [item] (0 .. n_labels - 1), and the classes that were drawn.

    classes [item pair], labels [item pair], query_class [item].
    """

    ids: Tensor
    answer: Tensor
    classes: Tensor
    labels: Tensor
    query_class: Tensor


def training_contexts(
    task: LabelTask, n_rows: int, generator: torch.Generator, *, has_random_labels: bool = False
) -> Contexts:
    """Trained classes with their own labels; `has_random_labels`: the pairs' labels are random (a control)."""
    weights = torch.arange(1, task.n_classes + 1).double() ** -task.alpha
    is_bursty = torch.rand(n_rows, generator=generator) < (task.p_burst if task.burstiness else 0.0)
    bursty, bursty_query = _bursty(weights, n_rows, max(1, task.burstiness), generator)
    plain = torch.multinomial(weights, n_rows * (N_PAIRS + 1), replacement=True, generator=generator).view(n_rows, -1)
    classes = torch.where(is_bursty[:, None], bursty, plain[:, :-1])
    query = torch.where(is_bursty, bursty_query, plain[:, -1])
    labels = classes % task.n_labels
    if has_random_labels:
        labels = torch.randint(task.n_labels, labels.shape, generator=generator)
    return _told(task, classes, labels, query, query % task.n_labels, generator)


def novel_contexts(task: LabelTask, n_rows: int, generator: torch.Generator) -> Contexts:
    """ICL: classes never trained, each with a label drawn for this context alone, different within it."""
    classes, query = _bursty(torch.ones(task.n_novel).double(), n_rows, max(1, task.burstiness), generator)
    drawn = torch.rand(n_rows, task.n_labels, generator=generator).argsort(dim=1)
    distinct = (classes[:, :, None] == classes[:, None, :]).double().argmax(dim=-1)  # the first pair of its class
    labels = drawn.gather(1, distinct)
    answer = labels.gather(1, (classes == query[:, None]).double().argmax(dim=1, keepdim=True))[:, 0]
    return _told(task, classes + task.n_classes, labels, query + task.n_classes, answer, generator)


def absent_contexts(task: LabelTask, n_rows: int, generator: torch.Generator) -> Contexts:
    """IWL: trained classes, drawn evenly, and a query whose class is not among the pairs."""
    drawn = torch.rand(n_rows, task.n_classes, generator=generator).argsort(dim=1)[:, : N_PAIRS + 1]
    classes, query = drawn[:, :-1], drawn[:, -1]
    return _told(task, classes, classes % task.n_labels, query, query % task.n_labels, generator)


def swapped_contexts(task: LabelTask, n_rows: int, generator: torch.Generator) -> Contexts:
    """ICL-swap: trained classes, drawn evenly, whose labels are all moved on by the same random number, never 0."""
    classes, query = _bursty(torch.ones(task.n_classes).double(), n_rows, max(1, task.burstiness), generator)
    moved = torch.randint(1, task.n_labels, (n_rows,), generator=generator)
    labels = (classes + moved[:, None]) % task.n_labels
    return _told(task, classes, labels, query, (query + moved) % task.n_labels, generator)


def _bursty(weights: Tensor, n_rows: int, copies: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes [item pair], each `copies` times in random order, and the class of the query, one of them."""
    distinct = torch.multinomial(weights.expand(n_rows, -1), N_PAIRS // copies, generator=generator)
    order = torch.rand(n_rows, N_PAIRS, generator=generator).argsort(dim=1)
    classes = distinct.repeat(1, copies).gather(1, order)
    which = torch.randint(N_PAIRS, (n_rows, 1), generator=generator)
    return classes, classes.gather(1, which)[:, 0]


def _told(
    task: LabelTask, classes: Tensor, labels: Tensor, query: Tensor, answer: Tensor, generator: torch.Generator
) -> Contexts:
    shown = torch.cat([classes, query[:, None]], dim=1)
    items = shown * task.n_exemplars + torch.randint(task.n_exemplars, shown.shape, generator=generator)
    pairs = torch.stack([items[:, :-1], labels + task.first_label], dim=-1).flatten(1)
    first = torch.full((len(classes), 1), task.first_id)
    return Contexts(torch.cat([first, pairs, items[:, -1:]], dim=1), answer, classes, labels, query)


def label_credit(scores: Tensor, answer: Tensor) -> Tensor:
    """1 where the right label alone has the highest score [item label], else 0: a tie earns nothing [item]."""
    rivals = scores.scatter(1, answer[:, None], -torch.inf).amax(dim=1)
    return (scores.gather(1, answer[:, None])[:, 0] > rivals).double()


def induction_strength(attention: Tensor, contexts: Contexts) -> Tensor:
    """How much more the query attends to right labels than to wrong ones [layer item head]; -1 .. 1, uniform: 0.

    attention [layer item head query key]; right are the labels of the pairs of the query's class. The mean weight on
    a wrong label counts as often as there are right ones: with one of each this is METHODS 16, Task S. NaN where
    either kind is missing.
    """
    to_labels = attention[:, :, :, -1, 2 : 2 * N_PAIRS + 1 : 2]
    is_right = (contexts.classes == contexts.query_class[:, None]).to(attention.dtype)[None, :, None]
    n_right, n_wrong = is_right.sum(dim=-1), (1 - is_right).sum(dim=-1)
    wrong = (to_labels * (1 - is_right)).sum(dim=-1) / n_wrong.masked_fill(n_wrong == 0, torch.nan)
    return (to_labels * is_right).sum(dim=-1) - wrong * n_right.masked_fill(n_right == 0, torch.nan)


def previous_strength(attention: Tensor) -> Tensor:
    """Attention of label tokens to the item before them, mean over pairs [layer item head]; 0 .. 1."""
    before = attention.diagonal(offset=-1, dim1=-2, dim2=-1)  # [..., query - 1]
    return before[..., 1 : 2 * N_PAIRS : 2].mean(dim=-1)


def best_head(strength: Tensor) -> Measure:
    """The head with the highest mean over items [layer item head], with its interval."""
    means = strength.nanmean(dim=1)
    layer, head = divmod(int(means.argmax()), means.shape[1])
    return measured_mean(strength[layer, :, head].numpy(), "fraction of attention")
