"""Mneme's runs, one case a process."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import material
from benchmarks.measured import Measured, best_of
from mneme.ablation import ablate_heads
from mneme.attention import AttentionInputs
from mneme.capturing import stream_attention
from mneme.model import LanguageModel, load_model
from mneme.patching import patch_heads
from mneme.readouts import logit_difference
from mneme.unembedding import row_chunks


def patching(folder: Path, shape: str, shared: int, positions: str | None) -> Measured:
    """Every head patched at all positions, or at each one, and the speed of one plain large-batch forward."""
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, shared)
    readout = logit_difference(correct, wrong)
    rate = plain_rate(lm)
    patch_heads(lm, base[:2], donor[:2], logit_difference(correct[:2], wrong[:2]))
    lm.forwards = 0
    found, seconds, cpu = best_of(
        3 if positions is None else 1, lambda: patch_heads(lm, base, donor, readout, positions)
    )
    work = counted_flops(lm, shared, by_position=positions == "each")
    return Measured(found.mean(dim=0).numpy(), seconds, cpu, {"forwards": lm.forwards, "work_seconds": work / rate})


def zero_ablation(folder: Path, shape: str) -> Measured:
    """Every head set to zero, against the counted work at the speed of a plain forward."""
    lm = load_model(material.model_folder(shape, folder))
    base, _, correct, wrong = material.pairs(lm.vocab_size, 0)
    rate = plain_rate(lm)
    found, seconds, cpu = best_of(3, lambda: ablate_heads(lm, base, logit_difference(correct, wrong)))
    work = counted_flops(lm, 0, by_position=False)
    return Measured(found.mean(dim=0).numpy(), seconds, cpu, {"work_seconds": work / rate})


def long_prompt(folder: Path, n_tokens: int, what: str) -> Measured:
    """A long prompt through one forward, all positions scored; with nothing else, or with some of its attention.

    what: "plain"; "rows", the keys that the last 32 rows attend to most; "entries", what every token gives the one
    before it.
    """
    lm = load_model(material.model_folder("llama", folder))
    ids = torch.randint(lm.vocab_size, (1, n_tokens), generator=torch.Generator().manual_seed(3))
    queries = torch.arange(1, n_tokens)
    kept: list[torch.Tensor] = []

    def visit(layer: AttentionInputs) -> None:
        if what == "rows":
            kept.append(layer.rows(queries[-32:]).topk(4, dim=-1).indices)
        else:
            kept.append(layer.entries(queries, queries - 1).mean(dim=-1))

    def run() -> torch.Tensor:
        hidden = lm.backbone.hidden(ids) if what == "plain" else stream_attention(lm, ids, visit)
        parts = [lm.backbone.unembed(hidden[0, some]).logsumexp(dim=-1) for some in row_chunks(n_tokens, lm.vocab_size)]
        return torch.cat(parts)

    with torch.no_grad():
        found, seconds, cpu = best_of(1, run)
    return Measured(found.numpy(), seconds, cpu, {})


def layer_flops(lm: LanguageModel) -> tuple[float, float]:
    """Floating-point operations per token of a whole layer's matrices, and of its MLP alone."""
    weights = [each.numel() for each in lm.structure.parts[0].layer.parameters() if each.ndim == 2]  # type: ignore[union-attr]
    attention = [each.numel() for each in lm.attention_modules[0].parameters() if each.ndim == 2]
    return 2.0 * sum(weights), 2.0 * (sum(weights) - sum(attention))


def plain_rate(lm: LanguageModel) -> float:
    """Floating-point operations per second of one plain forward of a large batch, the best of three."""
    ids = torch.randint(lm.vocab_size, (64, material.N_TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, seconds, _ = best_of(3, lambda: lm.backbone.hidden(ids))
    return ids.numel() * lm.n_layers * layer_flops(lm)[0] / seconds


def counted_flops(lm: LanguageModel, shared: int, *, by_position: bool) -> float:
    """Necessary work of a sweep over heads: for a change in layer l, the MLP of l and the layers after it.

    Only from the changed position on, the last layer only at the position that is read (its keys and values at all).
    """
    layer, mlp = layer_flops(lm)
    starts = range(shared, material.N_TOKENS) if by_position else [shared]
    kv = 2.0 * 2 * lm.d_model * lm.n_kv_heads * lm.head_width
    total = 0.0
    for first in range(lm.n_layers):
        for start in starts:
            n_positions = material.N_TOKENS - start
            if first == lm.n_layers - 1:
                cell = mlp
            else:
                cell = n_positions * (mlp + (lm.n_layers - 2 - first) * layer + kv) + layer
            total += cell * lm.n_heads * material.N_ITEMS
    return total
