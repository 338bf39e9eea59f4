"""Mneme's runs, one case a process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.measured import Beside, Measured, best_of
from benchmarks.work import Executed, counted_flops, layer_flops
from mneme.ablation import ablate_heads
from mneme.attention import AttentionInputs
from mneme.capturing import stream_attention
from mneme.model import LanguageModel, load_model
from mneme.patching import patch_heads
from mneme.readouts import logit_difference
from mneme.unembedding import row_chunks

N_ROUNDS = {"gpt2": 1, "llama": 3}  # a sweep over GPT-2's shape is many parts, each against its own plain forwards
ROWS = 32


def patching(folder: Path, shape: str, shared: int, positions: str | None) -> Measured:
    """Every head patched at all positions, or at each one, beside plain large-batch forwards."""
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, shared)
    patch_heads(lm, base[:1], donor[:1], logit_difference(correct[:1], wrong[:1]))
    work = counted_flops(lm, material.N_TOKENS, shared, by_position=positions == "each") * material.N_ITEMS
    readout = logit_difference(correct, wrong)

    def run(beside: Beside) -> torch.Tensor:
        return patch_heads(lm, base, donor, readout, positions, progress=beside)

    return sweep(lm, work, N_ROUNDS[shape], run)


def zero_ablation(folder: Path, shape: str) -> Measured:
    """Every head set to zero, beside plain large-batch forwards."""
    lm = load_model(material.model_folder(shape, folder))
    base, _, correct, wrong = material.pairs(lm.vocab_size, 0, material.N_ABLATED)
    ablate_heads(lm, base[:1], logit_difference(correct[:1], wrong[:1]))
    work = counted_flops(lm, material.N_TOKENS, 0, with_donor=False) * material.N_ABLATED

    def run(beside: Beside) -> torch.Tensor:
        return ablate_heads(lm, base, logit_difference(correct, wrong), progress=beside)

    return sweep(lm, work, N_ROUNDS[shape], run)


def sweep(lm: LanguageModel, work: float, n_rounds: int, run: Callable[[Beside], torch.Tensor]) -> Measured:
    """A sweep in seconds, and over its counted work at the speed of the plain forwards between its parts.

    over_counted_work, cpu_over_counted_work: medians of the rounds, by wall and by processor time;
    executed_over_counted: matrix work that ran over the counted one; plain_gflops: the speed of plain forwards;
    plain_spread: the slowest plain forward over the fastest, 1 on a quiet machine.
    """
    ids = torch.randint(lm.vocab_size, (64, material.N_TOKENS), generator=torch.Generator().manual_seed(0))
    per_forward = ids.numel() * lm.n_layers * layer_flops(lm)[0]
    found, rounds, executed = torch.empty(0), [], Executed()
    with torch.no_grad(), executed.counting(lm):
        lm.backbone.hidden(ids)
        executed.flops = 0.0
        for _ in range(n_rounds):
            rounds.append(Beside(lambda: lm.backbone.hidden(ids)))
            found = run(rounds[-1])
            rounds[-1].close()
    plains = [each for one in rounds for each in one.plains]
    facts = {
        "over_counted_work": statistics.median(each.forwards for each in rounds) * per_forward / work,
        "cpu_over_counted_work": statistics.median(each.cpu_forwards for each in rounds) * per_forward / work,
        "executed_over_counted": (executed.flops - len(plains) * per_forward) / (work * n_rounds),
        "counted_gflop": work / 1e9,
        "plain_gflops": per_forward / statistics.median(plains) / 1e9,
        "plain_spread": max(plains) / min(plains),
        "rounds": n_rounds,
    }
    seconds, cpu = min(each.seconds for each in rounds), min(each.cpu_seconds for each in rounds)
    return Measured(found.mean(dim=0).numpy(), seconds, cpu, facts)


def long_prompt(folder: Path, shape: str, n_tokens: int, what: str) -> Measured:
    """A long prompt through one forward, all positions scored; with nothing else, or with some of its attention.

    what: "plain"; "rows", the keys that the last 32 rows attend to most; "entries", what every token gives the one
    before it. The faster of two runs, but one run of a prompt longer than 2048 tokens.
    """
    lm = load_model(material.model_folder(shape, folder))
    ids = material.long_prompt(lm.vocab_size, n_tokens)
    queries = torch.arange(1, ids.shape[1])
    kept: list[torch.Tensor] = []

    def visit(layer: AttentionInputs) -> None:
        if what == "rows":
            kept.append(layer.rows(queries[-ROWS:]).topk(4, dim=-1).indices)
        else:
            kept.append(layer.entries(queries, queries - 1).mean(dim=-1))

    def run() -> torch.Tensor:
        kept.clear()
        hidden = lm.backbone.hidden(ids) if what == "plain" else stream_attention(lm, ids, visit)
        chunks = row_chunks(ids.shape[1], lm.vocab_size)
        return torch.cat([lm.backbone.unembed(hidden[0, some]).logsumexp(dim=-1) for some in chunks])

    with torch.no_grad():
        found, seconds, cpu = best_of(1 if n_tokens > 2048 else 2, run)
    return Measured(found.numpy(), seconds, cpu)
