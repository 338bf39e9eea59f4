"""How large things will be, from shapes alone: what to store, what to plan."""

from __future__ import annotations

from tasks.stage import Value

MIB = 2**20
_FLOAT32 = 4


def trace_bytes(model: Value, promptset: Value, site: str) -> int:
    """Bytes of a stored trace: queries and keys of every layer in float32, or a few numbers per position."""
    facts = model["facts"]
    tokens = int(promptset["n_items"]) * int(promptset["n_positions"])
    if site != "attention_inputs":
        return tokens * 2 * _FLOAT32
    heads, kv_heads = facts["n_heads"] or 0, facts["n_kv_heads"] or facts["n_heads"] or 0
    return int(tokens * (heads + kv_heads) * (facts["head_width"] or 0) * (facts["n_layers"] or 0) * _FLOAT32)


def fits(model: Value, promptset: Value, site: str, limit_mib: float) -> bool:
    """Whether a trace may be stored; one that may not is reduced by each probe inside the forward pass."""
    return trace_bytes(model, promptset, site) <= limit_mib * MIB
