"""Pieces of prompts end to end in one row: layers run over all tokens at once, attention over each prompt apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from mneme.interception import AttentionCall, handled
from mneme.unembedding import Backbone

Watch = Callable[[AttentionCall, list[int]], None]


@dataclass(frozen=True)
class Kept:
    """What enters attention at the first positions of a prompt: keys, values by layer [1 kv_head position width]."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """Tokens of a prompt from position `start` on: ids [position]; before = what is kept of the positions in front."""

    ids: Tensor
    start: int = 0
    before: Kept | None = None


@torch.no_grad()
def run_packed(
    backbone: Backbone, attention_modules: Sequence[nn.Module], pieces: Sequence[Piece], watch: Watch
) -> list[Tensor]:
    """Final hidden states of each piece [position d_model], all of them from one forward without any padding.

    watch(call, places) sees, layer by layer, the attention of neighbours of one shape: call.key and call.value hold all
    that a piece reads, [unit kv_head key width]; places [unit] say which pieces these are. So put like beside like.
    Exact: equal to a plain forward of each prompt, where `Structure.runs_packed`; one whole prompt always is.
    """
    pack = _Pack(pieces, watch)
    with handled(attention_modules, pack.attend):
        if pack.is_one_prompt:
            hidden = backbone.hidden(pieces[0].ids[None])
        else:
            hidden = backbone.hidden(pack.ids, position_ids=pack.positions, attention_mask=pack.unread_mask)
    return list(torch.split(hidden[0], [len(piece.ids) for piece in pieces]))


@dataclass(frozen=True)
class _Alike:
    """Neighbours of one shape: which pieces, where they lie in the row, their first position and number of tokens."""

    places: list[int]
    span: slice
    start: int
    n_new: int

    def apart(self, states: Tensor) -> Tensor:
        """[1 head token width] as [unit head position width], without a copy."""
        of_units = states[0, :, self.span]
        return of_units.reshape(len(of_units), len(self.places), self.n_new, -1).transpose(0, 1)


class _Pack:
    """What one forward over pieces needs: their tokens in one row, and where each lies in it."""

    def __init__(self, pieces: Sequence[Piece], watch: Watch) -> None:
        self.pieces = pieces
        self.watch = watch
        self.ids = torch.cat([piece.ids for piece in pieces])[None]
        device = self.ids.device
        ranges = [torch.arange(piece.start, piece.start + len(piece.ids), device=device) for piece in pieces]
        self.positions = torch.cat(ranges)[None]
        self.unread_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)  # so that transformers makes none
        self.groups = list(_alike(pieces))
        self.is_one_prompt = len(pieces) == 1 and pieces[0].start == 0

    def attend(self, call: AttentionCall) -> Tensor:
        """Z of every token [1 token head width], each prompt apart."""
        if self.is_one_prompt:  # under the mask that the model itself makes
            self.watch(call, [0])
            return call.compute()
        z = []
        for group in self.groups:
            apart = self._apart(call, group)
            self.watch(apart, group.places)
            z.append(apart.compute().flatten(0, 1))
        return torch.cat(z)[None]

    def _apart(self, call: AttentionCall, group: _Alike) -> AttentionCall:
        """The attention call of some pieces, as it were if they alone were run."""
        key, value = group.apart(call.key), group.apart(call.value)
        if group.start:
            before = [self.pieces[place].before or Kept() for place in group.places]
            key = _joined([kept.keys[call.layer][:, :, : group.start] for kept in before], key)
            value = _joined([kept.values[call.layer][:, :, : group.start] for kept in before], value)
        return replace(call, query=group.apart(call.query), key=key, value=value, mask=None)


def _alike(pieces: Sequence[Piece]) -> Iterator[_Alike]:
    token = 0
    for (start, n_new), run in groupby(enumerate(pieces), key=lambda each: (each[1].start, len(each[1].ids))):
        places = [place for place, _ in run]
        end = token + len(places) * n_new
        yield _Alike(places, slice(token, end), start, n_new)
        token = end


def _joined(before: Sequence[Tensor], new: Tensor) -> Tensor:
    """What stands before each unit [1 head start width], and then its new positions [unit head position width]."""
    start = before[0].shape[2]
    joined = new.new_empty(*new.shape[:2], start + new.shape[2], new.shape[3])
    for unit, kept in enumerate(before):
        joined[unit, :, :start] = kept[0]
    joined[:, :, start:] = new
    return joined
