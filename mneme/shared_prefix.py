"""Prompts that begin alike run as a tree: the keys and values of what they share are computed once and reused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_forward, items_per_group, key_tokens, tokens_with_prefix
from mneme.errors import BadInput
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.packing import Kept, Piece, run_packed
from mneme.progress import Progress, silent

LEAST_SHARED = 8  # tokens: to run a shorter shared prefix again costs less than a branch of its own
PIECES_COST = 2  # times the memory of one prompt's tokens: what enters attention is taken apart and joined
STORED = 2  # tensors a layer kept of a prompt on which others build: its keys and its values

Visit = Callable[[AttentionCall, Tensor, Tensor], None]


@dataclass(frozen=True)
class PrefixTree:
    """Which prompt takes its first positions from which other one.

    parents [item]: the prompt whose keys and values it takes, -1 = none; starts [item]: how many positions it takes.
    n_tokens: tokens that have to run; a tree of all prefixes has at least `n_distinct` of them.
    """

    parents: tuple[int, ...]
    starts: tuple[int, ...]
    n_tokens: int
    n_distinct: int


def prefix_tree(batch: Batch, own_from: Tensor, least_shared: int = LEAST_SHARED) -> PrefixTree:
    """The tree of a batch's prompts: each takes what it shares with an earlier one, but never what is its own.

    own_from [item]: the position from which on a prompt runs itself, even where another one has the same tokens.
    A shared part shorter than `least_shared` is run again. The prompt on which most others build comes first.
    """
    rows = [row[:length] for row, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)]
    order = _widest_first(rows)
    own = own_from.tolist()
    parents, starts, n_distinct = [-1] * len(rows), [0] * len(rows), len(rows[order[0]])
    for before, item in pairwise(order):
        shared = min(_n_shared(rows[before], rows[item]), own[item])
        n_distinct += len(rows[item]) - shared
        parent = before
        while parent >= 0 and shared - starts[parent] < least_shared:
            shared, parent = min(shared, starts[parent]), parents[parent]
        parents[item], starts[item] = parent, shared if parent >= 0 else 0
    n_tokens = sum(len(row) - start for row, start in zip(rows, starts, strict=True))
    return PrefixTree(tuple(parents), tuple(starts), n_tokens, n_distinct)


@torch.no_grad()
def run_shared(
    lm: LanguageModel,
    batch: Batch,
    rows: Tensor,
    visit: Visit,
    *,
    kept: dict[int, Kept] | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Final hidden states of each prompt at some positions, every shared prefix run once: [item row d_model].

    rows [item row] int64: the wanted positions; from the first of them on a prompt shares nothing.
    visit(call, items [unit], rows [unit row]) sees each attention call that holds wanted rows: of which prompts they
    are, and where they lie among the call's queries.
    kept: filled, where given, with the keys and values of all positions of each prompt.
    Exact: equal to a plain forward of each prompt, for sliding windows and latent attention too. A model that cannot be
    packed (`Structure.runs_packed`) shares nothing and runs each prompt alone.
    Raises: BadInput for rows outside their prompts; NotApplicable outside the attention interface.
    """
    batch = lm.batch(batch)
    rows = rows.to(batch.ids.device)
    if rows.shape[0] != len(batch) or bool(((rows < 0) | (rows >= batch.lengths[:, None])).any()):
        raise BadInput("the wanted rows must lie inside their prompts, as [item row]")
    own_from = rows.amin(dim=1) if lm.runs_packed else torch.zeros_like(batch.lengths)
    run = _Run(lm, batch, rows, visit, kept, prefix_tree(batch, own_from), progress)
    run.descend(run.children[-1], {})
    return torch.stack([run.hidden[item] for item in range(len(batch))])


@dataclass
class _Run:
    """What one run of a tree has found so far: final hidden states at the wanted rows, by prompt."""

    lm: LanguageModel
    batch: Batch
    rows: Tensor
    visit: Visit
    kept: dict[int, Kept] | None
    tree: PrefixTree
    progress: Progress
    hidden: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The prompts that build on a prompt; on -1, those that build on none."""
        children: dict[int, list[int]] = {}
        for item, parent in enumerate(self.tree.parents):
            children.setdefault(parent, []).append(item)
        return children

    def descend(self, items: list[int], stems: dict[int, Kept]) -> None:
        """Run prompts that build on the stems, then those that build on them."""
        most = items_per_group(self.lm, key_tokens(self.lm, self.batch.ids.shape[1]), STORED)
        waiting: dict[int, Kept] = {}
        for group in self._packs(items):
            waiting |= self._run_group(group, stems)
            if len(waiting) >= most:
                self._build_on(waiting)
                waiting = {}
        if waiting:
            self._build_on(waiting)

    def _build_on(self, stems: dict[int, Kept]) -> None:
        self.descend([child for stem in stems for child in self.children[stem]], stems)

    @cached_property
    def costs(self) -> list[int]:
        """Tokens that take as much memory in a forward as what each prompt runs."""
        lengths = self.batch.lengths.tolist()
        own = [(length - start, start) for length, start in zip(lengths, self.tree.starts, strict=True)]
        return [tokens_with_prefix(self.lm, *each) for each in own]

    def _packs(self, items: list[int]) -> Iterator[list[int]]:
        """Prompts for one forward each, those of one shape side by side; one prompt each where a model packs none."""
        most = items_per_forward(self.lm, 1) // PIECES_COST if self.lm.runs_packed else 0
        lengths = self.batch.lengths.tolist()
        pack: list[int] = []
        cost = 0
        for item in sorted(items, key=lambda each: (self.tree.starts[each], lengths[each], each)):
            if pack and cost + self.costs[item] > most:
                yield pack
                pack, cost = [], 0
            pack.append(item)
            cost += self.costs[item]
        if pack:
            yield pack

    def _run_group(self, group: list[int], stems: dict[int, Kept]) -> dict[int, Kept]:
        """Run prompts in one forward, or in more where memory runs out; those among them on which others build."""
        found: dict[int, Kept] = {}

        def run(some: slice) -> Tensor:
            found.update(self._forward(group[some], stems))
            self.progress(len(self.hidden), len(self.batch))
            return torch.empty(0)

        in_batches(self.lm, len(group), sum(self.costs[item] for item in group) // len(group), run)
        return found

    def _forward(self, group: list[int], stems: dict[int, Kept]) -> dict[int, Kept]:
        """Note the final hidden states of some prompts; keys and values of those on which others build."""
        starts = [self.tree.starts[item] for item in group]
        n_kept = {item: self._n_kept(item) for item in group}
        kept = {item: Kept() for item in group if n_kept[item]}
        device = self.batch.ids.device
        items = torch.tensor(group, device=device)
        rows = self.rows[items] - torch.tensor(starts, device=device)[:, None]

        def watch(call: AttentionCall, places: list[int]) -> None:
            self.visit(call, items[places], rows[places])
            for unit, place in enumerate(places):
                item = group[place]
                if item in kept:
                    kept[item].keys.append(call.key[unit : unit + 1, :, : n_kept[item]].clone())
                    kept[item].values.append(call.value[unit : unit + 1, :, : n_kept[item]].clone())

        pieces = [
            Piece(self.batch.ids[item, start : self.batch.lengths[item]], start, stems.get(self.tree.parents[item]))
            for item, start in zip(group, starts, strict=True)
        ]
        hidden = run_packed(self.lm.backbone, self.lm.attention_modules, pieces, watch)
        self.hidden |= {item: states[row] for item, states, row in zip(group, hidden, rows, strict=True)}
        if self.kept is not None:
            self.kept |= kept
        return {item: kept[item] for item in group if item in self.children}

    def _n_kept(self, item: int) -> int:
        """Of how many positions of a prompt keys and values are kept."""
        if self.kept is not None:
            return int(self.batch.lengths[item])
        return max((self.tree.starts[child] for child in self.children.get(item, [])), default=0)


def _widest_first(rows: Sequence[list[int]]) -> list[int]:
    """The rows in an order in which each shares most with the one before, those that most others share first."""
    order = sorted(range(len(rows)), key=lambda item: rows[item])
    shared = [_n_shared(rows[one], rows[other]) for one, other in pairwise(order)]
    found: list[int] = []
    waiting = [(0, len(rows))]
    while waiting:
        low, high = waiting.pop()
        if high - low == 1:
            found.append(order[low])
            continue
        least = min(shared[low : high - 1])
        cuts = [low, *(at + 1 for at in range(low, high - 1) if shared[at] == least), high]
        waiting += sorted(pairwise(cuts), key=lambda part: part[1] - part[0])
    return found


def _n_shared(one: list[int], other: list[int]) -> int:
    """How many first tokens two rows share."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])
