"""Mneme's runs, one case a process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.measured import Beside, Measured, best_of
from mneme.ablation import ablate_heads
from mneme.attention import AttentionInputs
from mneme.capturing import stream_attention
from mneme.model import LanguageModel, load_model
from mneme.patching import patch_heads
from mneme.readouts import logit_difference
from mneme.unembedding import row_chunks

N_ROUNDS = 3


def patching(folder: Path, shape: str, shared: int, positions: str | None) -> Measured:
    """Every head patched at all positions, or at each one, beside plain large-batch forwards."""
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, shared)
    patch_heads(lm, base[:2], donor[:2], logit_difference(correct[:2], wrong[:2]))
    work = counted_flops(lm, shared, by_position=positions == "each", with_donor=True)
    readout = logit_difference(correct, wrong)
    return sweep(lm, work, lambda beside: patch_heads(lm, base, donor, readout, positions, progress=beside))


def zero_ablation(folder: Path, shape: str) -> Measured:
    """Every head set to zero, beside plain large-batch forwards."""
    lm = load_model(material.model_folder(shape, folder))
    base, _, correct, wrong = material.pairs(lm.vocab_size, 0)
    ablate_heads(lm, base[:2], logit_difference(correct[:2], wrong[:2]))
    work = counted_flops(lm, 0, by_position=False, with_donor=False)
    return sweep(lm, work, lambda beside: ablate_heads(lm, base, logit_difference(correct, wrong), progress=beside))


def sweep(lm: LanguageModel, work: float, run: Callable[[Beside], torch.Tensor]) -> Measured:
    """A sweep in seconds, and over its counted work at the speed of the plain forwards between its parts.

    over_counted_work, cpu_over_counted_work: medians of the rounds, by wall and by processor time.
    """
    ids = torch.randint(lm.vocab_size, (64, material.N_TOKENS), generator=torch.Generator().manual_seed(0))
    per_forward = ids.numel() * lm.n_layers * layer_flops(lm)[0]
    found, rounds = torch.empty(0), []
    with torch.no_grad():
        for _ in range(N_ROUNDS):
            rounds.append(Beside(lambda: lm.backbone.hidden(ids)))
            found = run(rounds[-1])
    over = {
        "over_counted_work": statistics.median(each.forwards for each in rounds) * per_forward / work,
        "cpu_over_counted_work": statistics.median(each.cpu_forwards for each in rounds) * per_forward / work,
    }
    seconds, cpu = min(each.seconds for each in rounds), min(each.cpu_seconds for each in rounds)
    return Measured(found.mean(dim=0).numpy(), seconds, cpu, over)


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


def counted_flops(lm: LanguageModel, shared: int, *, by_position: bool, with_donor: bool) -> float:
    """Necessary work of a sweep over heads: what a change in layer l can alter, and the runs that it starts from.

    The base prompts once, the donors from the first difference on. In layer l the head's write and the MLP where the
    head is changed; in the next layer queries, keys and values there, the rest from there on; then whole layers; in the
    last layer keys and values from there on, all else only at the position that is read.
    """
    layer, mlp = layer_flops(lm)
    write, kv = 2.0 * lm.d_model * lm.head_width, 4.0 * lm.d_model * lm.n_kv_heads * lm.head_width
    qkv, last = kv + 2.0 * lm.d_model * lm.n_heads * lm.head_width, lm.n_layers - 1
    n_tokens = material.N_TOKENS
    total = (n_tokens + with_donor * (n_tokens - shared)) * lm.n_layers * layer
    for start in range(shared, n_tokens) if by_position else [shared]:
        n_after = n_tokens - start
        n_changed = 1 if by_position else n_after
        if not by_position or n_after == 1:
            total += lm.n_heads * (write + mlp)  # in the last layer
        for first in range(last):
            cell = n_changed * (write + mlp) + layer - kv
            if first == last - 1:
                cell += n_changed * kv
            else:
                cell += n_changed * qkv + n_after * (layer - qkv + (last - 2 - first) * layer + kv)
            total += lm.n_heads * cell
    return total * material.N_ITEMS
