"""How the cost of head patching grows with layers, heads, tokens and prompts, on a small GPT-2."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import material
from benchmarks.measured import Measured
from benchmarks.work import counted_flops
from mneme.model import LanguageModel
from mneme.patching import patch_heads
from mneme.readouts import logit_difference

D_MODEL = 32 if material.IS_SMALL else 256
N_ROUNDS = 3
BASE = {"layers": 4, "heads": 8, "tokens": 16, "prompts": 8}
# what grows, whether one position is patched at a time, sizes
AXES = [
    ("layers", False, (2, 4, 8)),
    ("heads", False, (4, 8, 16)),
    ("tokens", False, (8, 16, 32)),
    ("prompts", False, (4, 8, 16)),
    ("tokens", True, (8, 16, 32)),
]


def growth() -> Measured:
    """Seconds of a sweep over all heads, no shared prefix, for each size of each axis; the fastest of three rounds.

    facts["rows"]: axis, by_position, size, seconds, counted_gflop, and the exponents of both from the smallest size on.
    Rounds go over all sizes in turn, so that noise does not fall on one size.
    """
    rows, runs = [], []
    for axis, by_position, sizes in AXES:
        for size in sizes:
            run, work = prepared(BASE | {axis: size}, "each" if by_position else None)
            rows.append({"axis": axis, "by_position": by_position, "size": size, "counted_gflop": work / 1e9})
            runs.append(run)
            run()
    started = time.process_time()
    seconds = np.full((N_ROUNDS, len(runs)), np.nan)
    for round_ in range(N_ROUNDS):
        for place, run in enumerate(runs):
            since = time.perf_counter()
            run()
            seconds[round_, place] = time.perf_counter() - since
    best = seconds.min(axis=0)
    add_exponents(rows, best)
    return Measured(best, float(best.sum()), time.process_time() - started, {"rows": rows, "rounds": N_ROUNDS})


def prepared(sizes: dict[str, int], positions: str | None) -> tuple[Callable[[], torch.Tensor], float]:
    """A sweep ready to run, and its counted work in floating-point operations."""
    settings = {"n_embd": D_MODEL, "n_layer": sizes["layers"], "n_head": sizes["heads"], "vocab_size": 500}
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", bos_token_id=0, eos_token_id=0, **settings)
    model = AutoModelForCausalLM.from_config(config)
    lm = LanguageModel(model.eval().requires_grad_(False), "gpt2", None, "cpu")
    base, donor, correct, wrong = material.pairs(lm.vocab_size, 0, sizes["prompts"], sizes["tokens"])
    readout = logit_difference(correct, wrong)
    work = counted_flops(lm, sizes["tokens"], 0, by_position=positions == "each") * sizes["prompts"]
    return lambda: patch_heads(lm, base, donor, readout, positions), work


def add_exponents(rows: list[dict[str, Any]], seconds: np.ndarray) -> None:
    """Add to each row its seconds, and by which power of the size time and counted work grew from the smallest size."""
    for row, found in zip(rows, seconds.tolist(), strict=True):
        row["seconds"] = found
    for row in rows:
        first = next(each for each in rows if same_axis(each, row))
        if first is not row:
            factor = np.log(row["size"] / first["size"])
            row["exponent"] = float(np.log(row["seconds"] / first["seconds"]) / factor)
            row["counted_exponent"] = float(np.log(row["counted_gflop"] / first["counted_gflop"]) / factor)


def same_axis(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows belong to the same line of the picture."""
    return (one["axis"], one["by_position"]) == (other["axis"], other["by_position"])


def table(rows: list[dict[str, Any]]) -> str:
    """The growth rows as a Markdown table."""
    lines = ["| what grows | size | seconds | counted, GFLOP | time grows as size^ | counted work as size^ |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        powers = [f"{row[name]:.2f}" if name in row else "-" for name in ("exponent", "counted_exponent")]
        name = row["axis"] + (", head x position" if row["by_position"] else "")
        numbers = [f"{row['size']}", f"{row['seconds']:.3g}", f"{row['counted_gflop']:.3g}", *powers]
        lines.append("| " + " | ".join([name, *numbers]) + " |")
    return "\n".join(lines) + "\n"
