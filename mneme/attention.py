"""What enters the attention of one layer, and the attention probabilities that follow from it: rows, not maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mneme.errors import BadInput

CHUNK_ELEMENTS = 1 << 24  # attention scores in memory at once: 64 MiB in float32

Heads = Sequence[int] | Tensor | None


def visible_keys(positions: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys the queries at some positions see, themselves among them: bool, as the two broadcast."""
    visible = keys <= positions
    return visible if window is None else visible & (keys > positions - window)


@dataclass(frozen=True)
class AttentionInputs:
    """Queries and keys of one layer and one batch as they enter attention (after rotary embeddings and norms).

    Shape: query [item head query width]; key [item kv_head key width], query head h reads kv head h // (H / K);
    lengths [item] int64, the tokens of each item; mask bool, broadcastable to [item head query key], True = visible,
    or None = causal (inside the window, when there is one). The queries are the last ones of the keys' positions.
    A window w lets query q see keys q-w+1 .. q. scale multiplies the dot products; softcap c bends them to
    c * tanh(score / c) (Gemma-2); sinks [head] are learned logits that take probability away from the keys (GPT-OSS).
    normaliser [item head query]: log of the sum of exp(score) over each row, where the forward's kernel gave it away.

    Probabilities are float32 (float64 for float64 queries), 0 at keys that are not visible, NaN at padded queries.
    Source: METHODS 0; Vaswani et al. 2017.
    """

    layer: int
    query: Tensor
    key: Tensor
    lengths: Tensor
    scale: float
    mask: Tensor | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    normaliser: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        if self.query.ndim != 4 or self.key.ndim != 4 or self.query.shape[-1] != self.key.shape[-1]:
            raise BadInput("attention inputs need query [item head query width] and key [item kv_head key width]")
        if self.n_heads % self.key.shape[1] or len(self.query) != len(self.key) or self.n_queries > self.n_keys:
            raise BadInput(
                "attention inputs need kv heads that divide the heads, equal items, and no query without key"
            )
        if self.lengths.shape != self.query.shape[:1]:
            raise BadInput("attention inputs need one length per item")
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise BadInput("an attention mask must be bool, True where a key is visible")

    @property
    def n_heads(self) -> int:
        """Query heads."""
        return int(self.query.shape[1])

    @property
    def n_queries(self) -> int:
        """Query positions, padded ones included."""
        return int(self.query.shape[2])

    @property
    def n_keys(self) -> int:
        """Key positions, padded ones included."""
        return int(self.key.shape[2])

    @property
    def real_queries(self) -> Tensor:
        """Which queries are tokens, not padding: [item query] bool."""
        return self._position(torch.arange(self.n_queries, device=self.query.device)) < self.lengths[:, None]

    def rows(self, queries: Tensor | Sequence[int], heads: Heads = None) -> Tensor:
        """Attention probabilities of the named query rows: [item head query key], in the order of the names.

        queries: indices [query], or [item query] for other rows in each item. Memory: what is returned, so name few.
        """
        index = self._query_index(queries)
        probabilities = self.probabilities(index, heads)
        real = torch.gather(self.real_queries, 1, index.expand(len(self.query), -1))
        return probabilities.masked_fill(~real[:, None, :, None], torch.nan)

    def row_chunks(self, heads: Heads = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every row, some at a time: pairs of (queries [query], rows [item head query key]), never the whole map."""
        for queries in self._chunks(torch.arange(self.n_queries, device=self.query.device)[None], heads):
            yield queries[0], self.rows(queries[0], heads)

    def entries(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """Attention probability of single (query, key) pairs: [item head entry].

        query_index, key_index: [entry], or [item entry] for other entries in each item. Only these entries and the
        normalisers of their rows are computed. 0 where the key is not visible; NaN where the query is padding.
        """
        queries, keys = self._query_index(query_index), self._key_index(key_index)
        if queries.shape[1] != keys.shape[1]:
            raise BadInput("attention entries need as many query as key indices")
        queries, keys = queries + torch.zeros_like(keys), keys + torch.zeros_like(queries)  # one row per item in both
        score = self._entry_scores(queries, keys)
        normaliser = self._row_normaliser(query_index, queries)
        real = torch.gather(self.real_queries, 1, queries.expand(len(self.query), -1))
        return torch.exp(score - normaliser).masked_fill(~real[:, None, :], torch.nan)

    def log_normaliser(self) -> Tensor:
        """Log of the sum of exp(score) over each row, the sink included: [item head query], NaN at padding."""
        return self._log_normaliser.masked_fill(~self.real_queries[:, None, :], torch.nan)

    def column_means(self) -> Tensor:
        """Mean over the real queries of an item of the attention each key receives: [item head key]."""
        total = torch.zeros(len(self.query), self.n_heads, self.n_keys, dtype=self._dtype, device=self.query.device)
        for _, rows in self.row_chunks():
            total += rows.nan_to_num(0.0).sum(dim=2)
        return total / self.real_queries.sum(dim=1)[:, None, None]

    def attend(self, value: Tensor, queries: Tensor | None = None) -> Tensor:
        """Z = probabilities x values, per head: value [item kv_head key width] -> [item query head width].

        queries: the rows that are wanted, [query] or [item query]; None = all. Finite at padding; differentiable.
        """
        index = self._query_index(torch.arange(self.n_queries) if queries is None else queries)
        parts = []
        for some in self._chunks(index, None):
            weights = self.probabilities(some).to(value.dtype)
            grouped = weights.reshape(len(value), value.shape[1], -1, self.n_keys) @ value
            parts.append(grouped.reshape(len(value), self.n_heads, some.shape[1], -1))
        return torch.cat(parts, dim=2).transpose(1, 2)

    def probabilities(self, queries: Tensor, heads: Heads = None) -> Tensor:
        """Like `rows`, for checked indices [1|item query], with finite values at padded queries; differentiable."""
        score = self._scores(queries, heads)
        if self.sinks is None:
            return torch.softmax(score, dim=-1)
        sinks = self._head_sinks(heads)[None, :, None, None].expand(*score.shape[:-1], 1)
        return torch.softmax(torch.cat([score, sinks], dim=-1), dim=-1)[..., :-1]

    def select(self, items: slice | Tensor) -> AttentionInputs:
        """The named items."""
        mask = self.mask[items] if self.mask is not None and len(self.mask) == len(self.query) > 1 else self.mask
        return AttentionInputs(
            layer=self.layer,
            query=self.query[items],
            key=self.key[items],
            lengths=self.lengths[items],
            scale=self.scale,
            mask=mask,
            window=self.window,
            softcap=self.softcap,
            sinks=self.sinks,
            normaliser=None if self.normaliser is None else self.normaliser[items],
        )

    def to_arrays(self) -> dict[str, Tensor]:
        """Named tensors to store; what is None is left out."""
        numbers = {"scale": self.scale, "window": self.window, "softcap": self.softcap}
        arrays = {name: torch.tensor(number) for name, number in numbers.items() if number is not None}
        arrays["scale"] = torch.tensor(self.scale, dtype=torch.float64)
        names = ("query", "key", "lengths", "mask", "sinks", "normaliser")
        tensors: dict[str, Tensor | None] = {name: getattr(self, name) for name in names}
        return arrays | {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}

    @classmethod
    def from_arrays(cls, layer: int, arrays: Mapping[str, Tensor]) -> AttentionInputs:
        """The inverse of `to_arrays`."""
        window, softcap = arrays.get("window"), arrays.get("softcap")
        return cls(
            layer=layer,
            query=arrays["query"],
            key=arrays["key"],
            lengths=arrays["lengths"],
            scale=float(arrays["scale"]),
            mask=arrays.get("mask"),
            window=None if window is None else int(window),
            softcap=None if softcap is None else float(softcap),
            sinks=arrays.get("sinks"),
            normaliser=arrays.get("normaliser"),
        )

    @cached_property
    def _log_normaliser(self) -> Tensor:
        if self.normaliser is not None:
            return self.normaliser
        return self._normaliser_of(torch.arange(self.n_queries, device=self.query.device)[None])

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    def _normaliser_of(self, queries: Tensor) -> Tensor:
        """Log-sum-exp of the rows [1|item query]: [item head query]."""
        parts = []
        for some in self._chunks(queries, None):
            part = torch.logsumexp(self._scores(some, None), dim=-1)
            if self.sinks is not None:
                part = torch.logaddexp(part, self._head_sinks(None)[None, :, None])
            parts.append(part)
        return torch.cat(parts, dim=2)

    def _row_normaliser(self, query_index: Tensor, queries: Tensor) -> Tensor:
        """The normaliser of each entry's row [item head entry], from as few rows as possible."""
        is_known = self.normaliser is not None or "_log_normaliser" in self.__dict__
        if query_index.ndim == 1:
            distinct, place = torch.unique(queries[0], return_inverse=True)
            if not is_known and len(distinct) < self.n_queries:
                return self._normaliser_of(distinct[None])[:, :, place]
        elif not is_known and queries.shape[1] < self.n_queries:
            return self._normaliser_of(queries)
        index = queries[:, None, :].expand(len(self.query), self.n_heads, -1)
        return torch.gather(self._log_normaliser, 2, index)

    def _scores(self, queries: Tensor, heads: Heads) -> Tensor:
        """Scores of rows [1|item query], the lowest number where a key is not visible: [item head query key]."""
        rows, keys = self._take_queries(queries), self.key
        if heads is not None:
            chosen = torch.as_tensor(heads, device=rows.device)
            rows, keys = rows[:, chosen], keys[:, chosen // (self.n_heads // keys.shape[1])]
        items, n_heads, n_rows, width = rows.shape
        grouped = rows.to(self._dtype).reshape(items, keys.shape[1], -1, width)
        score = grouped @ keys.to(self._dtype).transpose(-1, -2)
        score = self._capped(score.reshape(items, n_heads, n_rows, -1) * self.scale)
        return score.masked_fill(~self._visible(queries, heads), torch.finfo(self._dtype).min)

    def _entry_scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scaled, capped scores of entries [1|item entry]: [item head entry]."""
        n_shared = self.n_heads // self.key.shape[1]
        visible = self._visible_entries(queries, keys)
        keys = keys.expand(len(self.key), -1)[:, None, :, None]
        taken = torch.gather(self.key, 2, keys.expand(-1, self.key.shape[1], -1, self.key.shape[-1]))
        rows = self._take_queries(queries).to(self._dtype)
        score = (rows * taken.to(self._dtype).repeat_interleave(n_shared, dim=1)).sum(dim=-1)
        return self._capped(score * self.scale).masked_fill(~visible, torch.finfo(self._dtype).min)

    def _capped(self, score: Tensor) -> Tensor:
        return score if self.softcap is None else self.softcap * torch.tanh(score / self.softcap)

    def _visible(self, queries: Tensor, heads: Heads) -> Tensor:
        """[1|item 1|head query key] bool, for rows [1|item query]."""
        keys = torch.arange(self.n_keys, device=self.query.device)
        if self.mask is None:
            return visible_keys(self._position(queries)[:, None, :, None], keys, self.window)
        mask = self.mask.expand(len(self.query), -1, -1, -1)
        if heads is not None and mask.shape[1] > 1:
            mask = mask[:, torch.as_tensor(heads, device=mask.device)]
        index = queries[:, None, :, None].expand(len(mask), mask.shape[1], -1, self.n_keys)
        return torch.gather(mask, 2, index)

    def _visible_entries(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[1|item 1|head entry] bool."""
        if self.mask is None:
            return visible_keys(self._position(queries), keys, self.window)[:, None, :]
        mask = self.mask.expand(len(self.query), -1, -1, -1)
        flat = (queries * self.n_keys + keys)[:, None, :].expand(len(mask), mask.shape[1], -1)
        return torch.gather(mask.flatten(2), 2, flat)

    def _position(self, queries: Tensor) -> Tensor:
        return queries + (self.n_keys - self.n_queries)

    def _take_queries(self, queries: Tensor) -> Tensor:
        if len(queries) == 1:
            return self.query[:, :, queries[0]]
        index = queries[:, None, :, None].expand(-1, self.n_heads, -1, self.query.shape[-1])
        return torch.gather(self.query, 2, index)

    def _head_sinks(self, heads: Heads) -> Tensor:
        assert self.sinks is not None  # noqa: S101  callers check
        sinks = self.sinks.to(self._dtype)
        return sinks if heads is None else sinks[torch.as_tensor(heads, device=sinks.device)]

    def _chunks(self, queries: Tensor, heads: Heads) -> Iterator[Tensor]:
        """Split rows [1|item query] so that the scores of one part fit in CHUNK_ELEMENTS."""
        n_heads = self.n_heads if heads is None else len(heads)
        size = max(1, CHUNK_ELEMENTS // max(1, len(self.query) * n_heads * self.n_keys))
        for start in range(0, queries.shape[1], size):
            yield queries[:, start : start + size]

    def _query_index(self, index: Tensor | Sequence[int]) -> Tensor:
        return self._index(index, self.n_queries, "query")

    def _key_index(self, index: Tensor | Sequence[int]) -> Tensor:
        return self._index(index, self.n_keys, "key")

    def _index(self, index: Tensor | Sequence[int], size: int, axis: str) -> Tensor:
        """Indices as [1|item n]; raises BadInput when one lies outside the axis."""
        tensor = torch.as_tensor(index, dtype=torch.int64, device=self.query.device)
        if tensor.ndim not in (1, 2) or (tensor.ndim == 2 and len(tensor) != len(self.query)):
            raise BadInput(f"{axis} indices must be [{axis}] or [item {axis}], not {tuple(tensor.shape)}")
        if tensor.numel() and (int(tensor.min()) < 0 or int(tensor.max()) >= size):
            raise BadInput(f"{axis} indices of layer {self.layer} must lie in 0..{size - 1}")
        return tensor[None] if tensor.ndim == 1 else tensor
