"""Approximate edge scores beside exact effects: the edges that score most, and others drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.edge_gradients import Pairs, Question
from mneme.edge_scoring import STORED, EdgeScores, check_pairs
from mneme.errors import BadInput
from mneme.exact_edges import ExactEdges
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout
from mneme.reliability import spearman


@dataclass(frozen=True)
class EdgeCheck:
    """Edges [edge 2] (source, slot) with their scores and their exact effects [edge], means over the pairs.

    is_top [edge] bool: the edges of largest |score|, largest first; the others were drawn from the rest. items
    [item edge]: the exact effect in each pair. Unit: the readout's.
    """

    edges: Tensor
    is_top: Tensor
    scores: Tensor
    items: Tensor

    @property
    def exact(self) -> Tensor:
        """The exact effects: [edge] float64."""
        return self.items.double().mean(dim=0)

    @property
    def spearman(self) -> float:
        """Rank correlation of scores and exact effects over all checked edges, -1 .. 1; NaN where one is constant."""
        return _spearman(self.scores, self.exact)

    @property
    def spearman_random(self) -> float:
        """The same over the edges drawn at random; NaN for fewer than two."""
        return _spearman(self.scores[~self.is_top], self.exact[~self.is_top])

    @property
    def sign_agreement(self) -> float:
        """Of the top edges with an effect, the fraction whose score has its sign; NaN where none has an effect."""
        scores, exact = self.scores[self.is_top], self.exact[self.is_top]
        has_effect = exact != 0
        return float((scores.sign() == exact.sign())[has_effect].double().mean())

    @property
    def recall(self) -> float:
        """Of as many checked edges as are top, those of largest |exact effect|, the fraction that is top: 0 .. 1.

        Edges that tie at the end of that list share the places that are left. Of the edges below the top only those
        drawn were run, so over all edges the recall is likely to be lower.
        """
        size = self.exact.abs()
        n_top = int(self.is_top.sum())
        least = size.sort(descending=True).values[n_top - 1]
        above, tied = size > least, size == least
        share = (n_top - int(above.sum())) / int(tied.sum())
        return (int((above & self.is_top).sum()) + share * int((tied & self.is_top).sum())) / n_top


@torch.no_grad()
def check_edges(  # noqa: PLR0913  the signature of `edge_scores`, plus how much is checked
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    scores: EdgeScores,
    *,
    n_top: int = 50,
    n_random: int = 100,
    seed: int,
    progress: Progress = silent,
) -> EdgeCheck:
    """Run the edges of largest |score|, and as many others drawn at random, exactly, beside their scores.

    Give the pairs and the readout that the scores come from; a graph with fewer edges is checked whole. Of equal scores
    the earlier source wins, then the earlier slot. Exactness as in `edge_scores` of method `exact`.
    Source: METHODS 6a (controls); Kramar et al. 2024.
    Raises: BadInput for pairs that do not align or are all the same, for scores of another graph, and for n_top under 1
    or n_random under 0; NotApplicable where the model's parts are not found.
    """
    whole_number("n_top", n_top, 1)
    whole_number("n_random", n_random, 0)
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_pairs(lm, clean, corrupt)
    is_grouped = scores.graph.n_kv_heads < scores.graph.n_heads
    question = Question.of(lm, as_readout(readout), clean, is_grouped=is_grouped)
    if scores.graph != question.graph:
        raise BadInput(f"the edge scores are of another graph than that of {lm.name}: score its own edges first")
    edges, is_top = _chosen(scores, n_top, n_random, seed)
    wanted = torch.zeros_like(question.graph.legal)
    wanted[edges[:, 0], edges[:, 1]] = True

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=clean.ids.device)
        pairs = Pairs.of(question, items, clean.select(some), corrupt.select(some))
        return ExactEdges(pairs).scores(wanted)[:, edges[:, 0], edges[:, 1]]

    n_tokens = clean.ids.shape[1]
    at_most = items_per_group(lm, n_tokens, STORED)
    found = in_batches(lm, len(clean), n_tokens, run, progress, at_most=at_most).cpu()
    return EdgeCheck(edges, is_top, scores.matrix.cpu()[edges[:, 0], edges[:, 1]].double(), found)


def _chosen(scores: EdgeScores, n_top: int, n_random: int, seed: int) -> tuple[Tensor, Tensor]:
    """The edges to check [edge 2], and whether each is of the top [edge]."""
    graph = scores.graph
    size = scores.matrix.abs().double().cpu().masked_fill(~graph.legal, -torch.inf)
    order = size.flatten().argsort(descending=True, stable=True)[: graph.n_edges]
    top, rest = order[:n_top], order[n_top:]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:n_random]
    places = torch.cat([top, rest[drawn]])
    edges = torch.stack([places // graph.n_slots, places % graph.n_slots], dim=1)
    return edges, torch.arange(len(places)) < len(top)


def _spearman(scores: Tensor, exact: Tensor) -> float:
    return spearman(scores.numpy(), exact.numpy()) if len(scores) > 1 else float("nan")
