"""Prompts that begin alike run as a tree: the keys and values of what they share are computed once and reused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group, tokens_with_prefix
from mneme.errors import BadInput
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.prefix_cache import Prefix
from mneme.progress import Progress, silent
from mneme.restart import rows_of

LEAST_SHARED = 8  # tokens: to run a shorter shared prefix again costs less than a branch of its own
FORWARD_COST = 32  # tokens that take as long as what a forward costs besides its tokens
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
def run_shared(lm: LanguageModel, batch: Batch, rows: Tensor, visit: Visit, *, progress: Progress = silent) -> Tensor:
    """Final hidden states of each prompt at some positions, every shared prefix run once: [item row d_model].

    rows [item row] int64: the wanted positions; from the first of them on a prompt shares nothing.
    visit(call, items [unit], rows [unit row]) sees each attention call that holds wanted rows: of which prompts they
    are, and where they lie among the call's queries.
    Exact: equal to a plain forward of each prompt, for sliding windows too. Latent attention, whose cache holds no
    keys, shares nothing.
    Raises: BadInput for rows outside their prompts; NotApplicable outside the attention interface.
    """
    batch = lm.batch(batch)
    rows = rows.to(batch.ids.device)
    if rows.shape[0] != len(batch) or bool(((rows < 0) | (rows >= batch.lengths[:, None])).any()):
        raise BadInput("the wanted rows must lie inside their prompts, as [item row]")
    is_shared = lm.structure is not None and lm.structure.has_plain_cache
    own_from = rows.amin(dim=1) if is_shared else torch.zeros_like(batch.lengths)
    run = _Run(lm, batch, rows, visit, prefix_tree(batch, own_from), progress)
    run.descend(None, run.children[-1])
    return torch.stack([run.hidden[item] for item in range(len(batch))])


@dataclass(frozen=True)
class _Stems:
    """Prompts that have run and on which others build: their keys and values by layer [stem kv_head position width]."""

    items: list[int]
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass
class _Run:
    """What one run of a tree has found so far: final hidden states at the wanted rows, by prompt."""

    lm: LanguageModel
    batch: Batch
    rows: Tensor
    visit: Visit
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

    def descend(self, stems: _Stems | None, items: list[int]) -> None:
        """Run prompts that build on the stems, then those that build on them."""
        most = items_per_group(self.lm, self._stored_tokens, STORED)
        lengths = self.batch.lengths.tolist()
        waiting: dict[int, _Stems] = {}
        for start, group in _together(items, self.tree.starts, lengths):
            for at in range(0, len(group), most):
                waiting |= self._run_group(stems, start, group[at : at + most])
                if len(waiting) >= most:
                    self._build_on(list(waiting.values()))
                    waiting = {}
        if waiting:
            self._build_on(list(waiting.values()))

    @cached_property
    def _stored_tokens(self) -> int:
        """Tokens of the residual's width that take as much memory as the keys of the longest prompt."""
        width = max(self.lm.d_model, self.lm.n_heads * self.lm.head_width)
        return math.ceil(self.batch.ids.shape[1] * self.lm.n_kv_heads * self.lm.head_width / width)

    def _run_group(self, stems: _Stems | None, start: int, group: list[int]) -> dict[int, _Stems]:
        """Run prompts from `start` on; those among them on which others build."""
        found: dict[int, _Stems] = {}

        def run(some: slice) -> Tensor:
            now, kept = self._forward(stems, start, group[some])
            self.hidden |= now
            found.update(kept)
            self.progress(len(self.hidden), len(self.batch))
            return torch.empty(0)

        n_tokens = int(self.batch.lengths[group].max()) - start
        in_batches(self.lm, len(group), tokens_with_prefix(self.lm, n_tokens, start), run)
        return found

    def _build_on(self, stems: Sequence[_Stems]) -> None:
        longest = max(each.keys[0].shape[2] for each in stems)

        def joined(parts: Iterable[Tensor]) -> Tensor:
            return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts])

        together = _Stems(
            [each.items[0] for each in stems],
            [joined(parts) for parts in zip(*(each.keys for each in stems), strict=True)],
            [joined(parts) for parts in zip(*(each.values for each in stems), strict=True)],
        )
        self.descend(together, [child for item in together.items for child in self.children[item]])

    def _forward(
        self, stems: _Stems | None, start: int, group: list[int]
    ) -> tuple[dict[int, Tensor], dict[int, _Stems]]:
        """Final hidden states by prompt, and the keys and values of those on which others build."""
        items = torch.tensor(group, device=self.batch.ids.device)
        part, rows = self.batch.select(items), self.rows[items] - start
        kept = {item: _Stems([item]) for item in group if item in self.children}
        lengths = {item: max(self.tree.starts[child] for child in self.children[item]) for item in kept}

        def watch(call: AttentionCall) -> Tensor:
            self.visit(call, items, rows)
            for unit, item in enumerate(group):
                if item in kept:
                    kept[item].keys.append(call.key[unit : unit + 1, :, : lengths[item]].clone())
                    kept[item].values.append(call.value[unit : unit + 1, :, : lengths[item]].clone())
            return call.compute()

        with handled(self.lm.attention_modules, watch):
            hidden = self._hidden(stems, start, part.ids[:, start:], group)
        return dict(zip(group, rows_of(hidden, rows), strict=True)), kept

    def _hidden(self, stems: _Stems | None, start: int, ids: Tensor, group: list[int]) -> Tensor:
        if stems is None or start == 0:
            return self.lm.backbone.hidden(ids)
        places = {item: place for place, item in enumerate(stems.items)}
        of = torch.tensor([places[self.tree.parents[item]] for item in group], device=ids.device)
        prefix = Prefix(stems.keys, stems.values, of, start)
        return self.lm.backbone.hidden(ids, past_key_values=prefix.cache(), use_cache=True)


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


def _together(items: list[int], starts: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Prompts that go through one forward, with the position from which all of them run.

    A prompt joins those before it where the tokens that this wastes cost less than a forward of its own.
    """
    group: list[int] = []
    first = longest = 0
    for item in sorted(items, key=lambda each: (-starts[each], lengths[each], each)):
        low, high = starts[item], max(longest, lengths[item])
        n_added = (len(group) + 1) * (high - low) - len(group) * (longest - first)
        if group and n_added - (lengths[item] - low) > FORWARD_COST:
            yield first, group
            group, high = [], lengths[item]
        group.append(item)
        first, longest = low, high
    if group:
        yield first, group
