"""Curves over training steps, made up by hand: what a study with steps leaves in the lake."""

from __future__ import annotations

import math
from collections.abc import Callable

import polars as pl

from storage.lake import Lake
from tests.storage.rows import NOON, deliver_head_scores, deliver_trial

STEPS = (0, 2, 8, 24, 64, 128, 256, 1024)
HALVES = {"previous_token": 30.0, "induction": 120.0}  # steps at half of the rise


def rising(step: float, half: float) -> float:
    """From .05 to .95, abruptly around `half`."""
    return 0.05 + 0.9 / (1 + (half / step) ** 3) if step else 0.05


def deliver_curves(
    lake: Lake,
    study: str,
    model: str = "tiny",
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    curve: Callable[[float, float], float] = rising,
) -> list[str]:
    """Two head probes at each step for each seed, later by a tenth from seed to seed; returns the trials' ids."""
    ids = []
    for seed in seeds:
        for probe, half in HALVES.items():
            for step in STEPS:
                name = f"{model}-{seed}-{probe}-{step}"
                best = curve(step, half * 1.1**seed)
                deliver_head_scores(lake, f"d-{name}", {(0, 0): best, (0, 1): 0.05})
                about = {"model": model, "model_seed": seed, "probe": probe, "step": step}
                deliver_trial(lake, f"d-{name}", trial_id=f"t-{name}", **about)
                ids.append(f"t-{name}")
    answers = [{"study": study, "trial_id": each, "delivery_id": f"d{each[1:]}", "answered_at": NOON} for each in ids]
    answers = [{**each, "previous_delivery_id": None} for each in answers]
    lake.deliver("answers", f"{study}--{model}", pl.DataFrame(answers))  # one file: hundreds would be slow
    return ids


def deliver_training(lake: Lake, training_id: str, model: str = "tiny", seed: int = 0, half: float = 60.0) -> None:
    """The loss of one training, falling around step `half`."""
    rows = [
        {
            "training_id": training_id,
            "model": model,
            "model_seed": seed,
            "step": step,
            "measure": "loss",
            "value": 4.0 - 3 * rising(step, half) + 0.01 * math.sin(step),
            "unit": "nats",
            "ci_low": None,
            "ci_high": None,
            "n_items": None,
        }
        for step in STEPS
    ]
    lake.deliver("training", training_id, pl.DataFrame(rows, infer_schema_length=None))
