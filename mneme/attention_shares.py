"""How much attention goes to named keys: the sums that pattern probes are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mneme.attention import AttentionInputs

NOTHING_LEFT = 1e-6  # below this share of a row, what is left of it is rounding, not attention


def entry_shares(layer: AttentionInputs, queries: Tensor, keys: Tensor) -> Tensor:
    """Attention of (query, key) pairs [entry]: [item head entry], NaN at padding and outside the layer's window."""
    if len(queries) == 0:
        return torch.empty(len(layer.query), layer.n_heads, 0, device=layer.query.device)
    shares = layer.entries(queries, keys)
    if layer.window is not None:
        shares = shares.masked_fill(keys <= queries - layer.window, torch.nan)
    return shares


def row_mean(shares: Tensor) -> Tensor:
    """Mean over the defined entries of the last axis, NaN where there is none: [item head]."""
    return shares.double().nanmean(dim=-1).to(shares.dtype)


def without_first(shares: Tensor, first: Tensor) -> Tensor:
    """Shares of what remains of each row when column 0 is dropped; NaN where nothing remains."""
    rest = 1 - first
    return torch.where(rest > NOTHING_LEFT, shares / rest, torch.nan).clamp(max=1.0)


def is_repeated(facts: Mapping[str, Any]) -> bool:
    """Whether a promptset has a known period, and with it known offsets."""
    return "period" in facts


def offset_shares(layer: AttentionInputs, facts: Mapping[str, Any], shift: int, exclude_first: bool) -> Tensor:
    """Attention from each query of the later copies to its place in every earlier copy, plus `shift`.

    shift 0 = the same place (duplicate), 1 = the place after it (induction). More than two copies: the sum over all
    earlier ones. Returns [item head query] over the queries offset + period .. the end.
    Source: METHODS 1a, exact offsets.
    """
    period, offset, copies = int(facts["period"]), int(facts["offset"]), int(facts["copies"])
    device = layer.query.device
    queries = torch.arange(offset + period, offset + copies * period, device=device)
    dtype = torch.promote_types(layer.query.dtype, torch.float32)
    total = torch.zeros(len(layer.query), layer.n_heads, len(queries), dtype=dtype, device=device)
    known = torch.zeros(len(queries), dtype=torch.bool, device=device)
    for back in range(1, copies):
        later = queries >= offset + back * period
        keys = queries[later] - back * period + shift
        shares = entry_shares(layer, queries[later], keys)
        if exclude_first:
            shares = shares.masked_fill(keys == 0, torch.nan)
        known[later] |= ~shares.isnan().all(dim=1).all(dim=0)
        total[:, :, later] += shares.nan_to_num(0.0)
    total = total.masked_fill(~known, torch.nan)
    if not exclude_first:
        return total
    return without_first(total, layer.entries(queries, torch.zeros_like(queries)))


def matched_shares(layer: AttentionInputs, ids: Tensor, shift: int, exclude_first: bool) -> Tensor:
    """Attention from each query to the earlier keys that hold its token (shift 0) or follow it (shift 1).

    S(q) = {k < q : x_(k - shift) = x_q}; [item head query], NaN where S(q) is empty, outside the window or padding.
    Source: METHODS 1a, general text form.
    """
    ids = ids.to(layer.query.device)
    positions = torch.arange(ids.shape[1], device=ids.device)
    found = []
    for queries, rows in layer.row_chunks():
        match = torch.zeros(len(ids), len(queries), ids.shape[1], dtype=torch.bool, device=ids.device)
        match[:, :, shift:] = ids[:, None, : ids.shape[1] - shift] == ids[:, queries, None]
        match &= positions < queries[:, None]
        if layer.window is not None:
            match &= positions > queries[:, None] - layer.window
        if exclude_first:
            match[:, :, 0] = False
        shares = (rows * match[:, None]).sum(dim=-1)
        if exclude_first:
            shares = without_first(shares, rows[..., 0])
        found.append(shares.masked_fill(~match.any(dim=-1)[:, None], torch.nan))
    return torch.cat(found, dim=-1)


def distributions(rows: Tensor, exclude_first: bool) -> Tensor:
    """Rows as distributions over their keys, column 0 set to 0 on request; NaN rows where nothing remains.

    Rows sum to less than 1 where a model has a learned sink: what goes to it is no attention to a key.
    """
    rows = rows.clone()
    if exclude_first:
        rows[..., 0] = 0
    total = rows.sum(dim=-1, keepdim=True)
    return torch.where(total > NOTHING_LEFT, rows / total, torch.nan)
