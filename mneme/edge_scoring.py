"""Scores of all edges: by how much the readout changes when one edge alone carries the corrupt value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.edge_gradients import EdgeGradients, Pairs, Question
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput
from mneme.exact_edges import ExactEdges
from mneme.model import LanguageModel
from mneme.patching import check_aligned, position_of
from mneme.progress import Progress, silent
from mneme.readouts import Readout, as_readout

EdgeMethod = Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"]
KeyValueSlots = Literal["ungrouped", "grouped"]
Rule = Literal["left", "midpoint", "right"]
SHIFT = {"left": 0.0, "midpoint": 0.5, "right": 1.0}
STORED, STEP_STORED = 48, 2  # tensors a layer kept of each pair: two baselines and a forward's graph; of each step


@dataclass(frozen=True)
class EdgeScores:
    """What each edge does: matrix [source slot], mean over the pairs, NaN where there is no edge.

    items [item source slot] and by_position [position source slot] only when asked for; the latter is the mean over the
    pairs that have the position, NaN where none has. clean, corrupt [item]: the readout of the two runs, float64.
    """

    matrix: Tensor
    graph: EdgeGraph
    clean: Tensor
    corrupt: Tensor
    items: Tensor | None = None
    by_position: Tensor | None = None

    @property
    def completeness_error(self) -> float:
        """How far the edges that leave the input miss the whole change of the readout, as a fraction of it.

        METHODS 6c asks for at most 0.05: more steps, or the midpoint rule, bring it down. For `eap-ig-inputs` alone:
        other methods need not be complete.
        """
        whole = float((self.corrupt - self.clean).mean())
        return abs(float(self.matrix[0].nansum()) - whole) / abs(whole)


@torch.no_grad()
def edge_scores(  # noqa: PLR0913  the stable signature, plus what long runs need
    lm: LanguageModel,
    clean_ids: Tensor | Batch,
    corrupt_ids: Tensor | Batch,
    readout: Readout | Callable[[Tensor], Tensor],
    method: EdgeMethod = "eap",
    steps: int = 5,
    rule: Rule = "midpoint",
    *,
    kv: KeyValueSlots = "ungrouped",
    positions: Literal["each"] | Sequence[str] | None = None,
    keep_items: bool = False,
    progress: Progress = silent,
) -> EdgeScores:
    """By how much the readout of the clean prompts changes when one edge alone carries its corrupt value.

    Negative: the edge helps. Unit: the readout's. An edge adds the change of its source (corrupt minus clean, an MLP or
    a head without the output projection's bias) to what one slot reads before its norm, at all positions. A norm after
    attention belongs to the sum of the heads.

    method: `exact` runs the model for every edge: small models only. The others are the change of the source times the
    gradient at the slot: `eap` at the clean run; `clean-corrupted` the mean of both ends; `eap-ig-inputs` the mean over
    `steps` runs whose embeddings lie between corrupt and clean; `eap-ig-activations` the same, but for the sources of
    one layer (its heads, its MLP, or the input) it is what they write that lies between, all before them clean.
    rule: where the steps lie: at j / steps of the way from corrupt to clean for `left` (j from 0, as the authors) and
    `right` (j from 1), halfway between for `midpoint`.
    kv: every query head has key and value slots of its own (`ungrouped`), or one slot serves all heads that share it
    (`grouped`: to first order the sum of theirs). positions: also the scores of edges that carry the change at a single
    position, `each` or position labels, in `by_position`; to first order those of all positions sum to the whole.
    Departs from the authors' code in `eap-ig-activations`: the gradients of a run count for the sources that it
    interpolates and no others, and their sum is divided by `steps` alone, so that the scores keep the readout's unit.
    Source: METHODS 6b, 6c; Syed et al. 2023 (EAP); Hanna et al. 2024 (EAP-IG).
    Raises: BadInput for pairs that do not align, are all the same, or a bad readout, rule or steps, for float16 and for
    integer weights; NotApplicable where the model's parts are not found.
    """
    one_of("method", method, get_args(EdgeMethod))
    one_of("rule", rule, get_args(Rule))
    one_of("kv", kv, get_args(KeyValueSlots))
    whole_number("steps", steps, 1)
    clean, corrupt = lm.batch(clean_ids), lm.batch(corrupt_ids)
    check_pairs(lm, clean, corrupt)
    question = Question.of(lm, as_readout(readout), clean, is_grouped=kv == "grouped")
    places = _places(clean, positions)
    sums = _Sums(question, method, shares(method, steps, rule), places, keep_items=keep_items)

    def run(some: slice) -> Tensor:
        items = torch.arange(some.start, some.stop, device=clean.ids.device)
        return sums.add(Pairs.of(question, items, clean.select(some), corrupt.select(some)))

    n_tokens = clean.ids.shape[1]
    at_most = items_per_group(lm, n_tokens, STORED + STEP_STORED * len(sums.at))
    return sums.result(in_batches(lm, len(clean), n_tokens, run, progress, at_most=at_most))


def shares(method: EdgeMethod, steps: int, rule: Rule) -> list[float]:
    """How far each run lies from the corrupt one (0) on the way to the clean one (1)."""
    if method == "eap":
        return [1.0]
    if method == "clean-corrupted":
        return [0.0, 1.0]
    return [(step + SHIFT[rule]) / steps for step in range(steps)]


def check_pairs(lm: LanguageModel, clean: Batch, corrupt: Batch) -> None:
    """Refuse with BadInput pairs that are not aligned or all the same, and models in which edges cannot be scored."""
    check_aligned(clean, corrupt)
    if bool(((clean.ids == corrupt.ids) | ~clean.padding.bool()).all()):
        raise BadInput("every corrupt prompt is its clean prompt, so no edge carries a difference: change the pairs")
    integers = next((name for name, each in lm.hf.state_dict().items() if not _is_number(each)), None)
    if integers is not None:
        raise BadInput(
            f"{lm.name} holds integer weights ({integers}), which have no gradients: load it in bfloat16 or float32"
        )
    if lm.dtype == torch.float16:
        raise BadInput(
            f"{lm.name} is loaded in float16, where small differences vanish: load it in bfloat16 or float32"
        )


def _is_number(entry: object) -> bool:
    """Whether an entry of a model's state is what it says: no packed object, and no matrix of integers."""
    return isinstance(entry, Tensor) and (entry.ndim < 2 or entry.is_floating_point() or entry.dtype == torch.bool)


class _Sums:
    """Scores summed over groups of pairs, and kept where they are wanted; places [place item], -1 = no such place."""

    def __init__(
        self, question: Question, method: EdgeMethod, at: list[float], places: Tensor, *, keep_items: bool
    ) -> None:
        self.question = question
        self.method = method
        self.at = at
        self.places = places
        self.keep_items = keep_items
        self.kept: list[Tensor] = []
        self.total = torch.zeros((), dtype=torch.float64, device=question.lm.device)
        self.by_place = torch.zeros((), dtype=torch.float64, device=question.lm.device)

    def add(self, pairs: Pairs) -> Tensor:
        """Add the scores of some pairs; their readouts, clean and corrupt [item 2] float64."""
        ends = torch.stack([pairs.read(pairs.clean), pairs.read(pairs.corrupt)], dim=1).double()
        scores, by_place = self._scores(pairs, self.places[:, pairs.items])
        self.total = self.total + scores.double().sum(dim=0)
        self.by_place = self.by_place + by_place.double()
        self.kept += [scores] if self.keep_items else []
        return ends

    def result(self, ends: Tensor) -> EdgeScores:
        """The mean over all pairs, with their readouts [item 2]."""
        graph = self.question.graph
        illegal = ~graph.legal.to(ends.device)
        dtype = torch.float64 if self.question.lm.dtype == torch.float64 else torch.float32
        matrix = (self.total / len(ends)).to(dtype).masked_fill(illegal, torch.nan)
        items = torch.cat(self.kept).masked_fill(illegal, torch.nan) if self.keep_items else None
        counts = (self.places >= 0).sum(dim=1)[:, None, None]
        by_place = (self.by_place / counts).to(dtype).masked_fill(illegal, torch.nan) if len(counts) else None
        return EdgeScores(matrix, graph, ends[:, 0], ends[:, 1], items, by_place)

    def _scores(self, pairs: Pairs, places: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of some pairs [item source slot], and of each place summed over them [place source slot].

        What is no edge holds anything.
        """
        if self.method == "exact":
            index = torch.arange(pairs.clean.batch.ids.shape[1], device=places.device)
            alone = [ExactEdges(pairs, index == at[:, None]).scores().sum(dim=0) for at in places]
            scores = ExactEdges(pairs).scores()
            return scores, torch.stack(alone) if alone else scores[:0]
        gradients = EdgeGradients(pairs, places)
        if self.method != "eap-ig-activations":
            gradients.at_inputs(self.at)
            return gradients.scores, gradients.by_place
        for share in self.at:
            gradients.at_activations(share, 1 / len(self.at))
        return gradients.scores, gradients.by_place


def _places(batch: Batch, positions: Literal["each"] | Sequence[str] | None) -> Tensor:
    """The named positions of each prompt [place item], -1 where it has none."""
    if positions == "each":
        every = torch.arange(batch.ids.shape[1], device=batch.ids.device)[:, None]
        return torch.where(every < batch.lengths, every, -1)
    labels = [positions] if isinstance(positions, str) else list(positions or [])
    return (
        torch.stack([position_of(batch, label) for label in labels])
        if labels
        else batch.lengths.new_empty(0, len(batch))
    )
