"""Rows made up by hand for tests of the lake, the warehouse, the views and the report."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from storage.home import Home
from storage.lake import Lake
from tests.storage.circuits import FACTS, deliver_circuits, deliver_overlaps

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def trial_row(delivery_id: str, **changes: Any) -> dict[str, Any]:
    """A delivered induction trial; `changes` replace columns."""
    row = {
        "delivery_id": delivery_id,
        "trial_id": "t1",
        "model": "tiny",
        "model_seed": 0,
        "step": None,
        "promptset": "repeated_tokens",
        "promptset_seed": 0,
        "is_control": False,
        "baseline": None,
        "probe": "induction",
        "variant": "primary",
        "probe_seed": 0,
        "level": "head",
        "unit": "fraction of attention",
        "low": 0.0,
        "high": 1.0,
        "status": "delivered",
        "error": None,
        "delivered_at": NOON,
        "seconds": 1.5,
        "forwards": 4,
        "device": "cpu",
        "dtype": "float32",
        "code": "c0de",
        "versions": '{"torch": "2.13.0"}',
        "identity": "{}",
        "spec": "{}",
    }
    assert changes.keys() <= row.keys()
    return row | changes


def deliver_trial(lake: Lake, delivery_id: str, **changes: Any) -> None:
    """Deliver the trial's own row."""
    lake.deliver("trials", delivery_id, pl.DataFrame([trial_row(delivery_id, **changes)], infer_schema_length=None))


def deliver_answer(
    lake: Lake, study: str, trial_id: str, delivery_id: str, minutes: int = 0, previous: str | None = None
) -> None:
    """Say that a study took a delivery as its answer `minutes` after noon, and which one it had `previous`ly."""
    row = {"study": study, "trial_id": trial_id, "delivery_id": delivery_id, "previous_delivery_id": previous}
    at = NOON + timedelta(minutes=minutes)
    lake.deliver("answers", f"{study}--{trial_id}", pl.DataFrame([row | {"answered_at": at}]))


def deliver_head_scores(lake: Lake, delivery_id: str, scores: dict[tuple[int, int], float | None]) -> None:
    """Deliver the mean score of each (layer, head), with an interval of 0.1 around it; None = not measured."""
    rows = [
        {
            "delivery_id": delivery_id,
            "layer": layer,
            "head": head,
            "score": score,
            "ci_low": None if score is None else score - 0.05,
            "ci_high": None if score is None else score + 0.05,
            "n_items": 20,
            "n_clusters": None,
        }
        for (layer, head), score in scores.items()
    ]
    lake.deliver("head_scores", delivery_id, pl.DataFrame(rows))


def fill(home: Home, study: str = "example") -> None:
    """A small study with everything in it: two models, a control, effects, behavior, steps, a failure, a refusal."""
    draw, lake = random.Random(0), Lake(home.lake)
    for model, n_layers, n_heads in (("tiny_gpt2", 2, 4), ("small_llama", 6, 8)):
        for promptset, is_control in (("repeated_tokens", False), ("repeated_tokens_shuffled", True)):
            about = {"model": model, "promptset": promptset, "is_control": is_control}
            for probe in ("induction", "previous_token"):
                _deliver_head_trial(lake, study, draw, about | {"probe": probe}, (n_layers, n_heads))
            _deliver_behavior(lake, study, draw, about)
            deliver_circuits(lake, _answer(lake, study, about | FACTS))
        about = {"model": model, "promptset": "repeated_tokens"}
        _deliver_ablation(lake, study, draw, about, (n_layers, n_heads))
        _deliver_lens(lake, study, about)
        row = about | {"model_seed": 0, "promptset_seed": 0, "study": study, "recorded_at": NOON}
        lake.deliver("recordings", f"{study}-{model}", pl.DataFrame([row | {"mlflow_run_id": f"run-{model}"}]))
    deliver_overlaps(lake, study, "tiny_gpt2", ("repeated_tokens", "repeated_tokens_shuffled"))
    _deliver_dynamics(lake, study, draw)
    for probe, status, error in (
        (
            "entropy",
            "failed",
            "prompt 3 holds token 70000, but the vocabulary of 'tiny_gpt2' has 64 <tokens> & no more",
        ),
        ("distance", "not_applicable", "a text promptset needs a tokenizer, and model 'tiny_gpt2' has none"),
    ):
        _answer(lake, study, {"model": "tiny_gpt2", "probe": probe, "status": status, "error": error})
    deliver_comparisons(lake, study)
    _deliver_earlier_answer(lake, study)


def comparison_row(claim: str, **changes: Any) -> dict[str, Any]:
    """A claim that holds; `changes` replace columns."""
    row = {
        "comparison_id": f"c-{claim}",
        "study": "example",
        "claim": claim,
        "description": "Induction heads attend <more> than chance.",
        "expected": "above",
        "found": 0.9,
        "control": 0.1,
        "difference": 0.8,
        "ci_low": 0.7,
        "ci_high": 0.9,
        "n": 8,
        "verdict": "holds",
        "reason": None,
        "level": 0.95,
        "margin": 0.3,
        "least_n": 5,
        "unit": "fraction of attention",
        "found_sql": "select trial_id as unit_id, value from mart.behavior",
        "control_sql": None,
    }
    assert changes.keys() <= row.keys()
    return row | changes


def phase_change_row(measure: str, **changes: Any) -> dict[str, Any]:
    """A phase change at step 500; `changes` replace columns."""
    row = {
        "comparison_id": f"p-{measure}",
        "study": "example",
        "model": "tiny_gpt2",
        "model_seed": 0,
        "promptset": "repeated_tokens",
        "promptset_seed": 0,
        "probe": measure,
        "variant": "primary",
        "measure": measure,
        "t50": 500.0,
        "t50_low": 400.0,
        "t50_high": 600.0,
        "width": 700.0,
        "rise": 0.8,
        "bic_gain": 40.0,
        "n_steps": 12,
        "verdict": "phase change",
    }
    assert changes.keys() <= row.keys()
    return row | changes


def deliver_comparisons(lake: Lake, study: str = "example") -> None:
    """One claim of each verdict, a curve with a phase change and one without."""
    unknown = dict.fromkeys(("difference", "ci_low", "ci_high"))
    claims = [
        comparison_row("early", study=study),
        comparison_row("late", study=study, verdict="does not hold", reason="the interval contradicts it"),
        comparison_row("never", study=study, verdict="cannot be tested", reason="too few", n=2, **unknown),
    ]
    none = dict.fromkeys(("t50", "t50_low", "t50_high", "width")) | {"verdict": "none", "rise": 0.1, "bic_gain": -3.0}
    curves = [phase_change_row("induction", study=study), phase_change_row("previous_token", study=study, **none)]
    lake.deliver("comparisons", study, pl.DataFrame(claims, infer_schema_length=None))
    lake.deliver("phase_changes", study, pl.DataFrame(curves, infer_schema_length=None))


def _deliver_dynamics(lake: Lake, study: str, draw: random.Random) -> None:
    """A head probe and a behavior at three steps, and what the training measured itself."""
    for step in (0, 10, 100):
        about = {"model": "tiny_gpt2", "promptset": "repeated_tokens", "is_control": False, "step": step}
        _deliver_head_trial(lake, study, draw, about | {"probe": "induction"}, (2, 4))
        _deliver_behavior(lake, study, draw, about)
    rows = [
        training_row(step, measure, value=value, unit=unit)
        for step in (0, 10, 100)
        for measure, value, unit in (("loss", 4.0 - step / 40, "nats"), ("copy_accuracy", step / 100, "fraction"))
    ]
    lake.deliver("training", "tiny-training", pl.DataFrame(rows, infer_schema_length=None))


def training_row(step: int, measure: str, **changes: Any) -> dict[str, Any]:
    """A number without an interval, measured while `tiny_gpt2` was trained."""
    row = {"training_id": "tiny-training", "model": "tiny_gpt2", "model_seed": 0, "step": step, "measure": measure}
    row |= {"value": 0.5, "unit": "fraction", "ci_low": None, "ci_high": None, "n_items": None}
    return row | changes


def _deliver_earlier_answer(lake: Lake, study: str) -> None:
    """What a control trial was answered by before: the same readout, four points lower, by other code."""
    name = "tiny_gpt2-repeated_tokens_shuffled-copy_accuracy"
    about = {"promptset": "repeated_tokens_shuffled", "probe": "copy_accuracy", "model": "tiny_gpt2"}
    facts = {"level": "behavior", "unit": "fraction", "is_control": True, "identity": '{"code.mneme.old": "1"}'}
    deliver_trial(lake, "d-earlier", trial_id=f"t-{name}", **about, **facts)
    row = {"readout": "copy_accuracy", "value": 0.71, "is_accuracy": True, "chance": 1 / 64}
    lake.deliver("behavior", "d-earlier", _with_id("d-earlier", [row | _interval(0.71)]))
    deliver_answer(lake, study, f"t-{name}", f"d-{name}", previous="d-earlier")


def _answer(lake: Lake, study: str, about: dict[str, Any]) -> str:
    name = f"{about['model']}-{about.get('promptset', 'repeated_tokens')}-{about['probe']}"
    name += f"-{about['step']}" if "step" in about else ""
    deliver_trial(lake, f"d-{name}", trial_id=f"t-{name}", **about)
    deliver_answer(lake, study, f"t-{name}", f"d-{name}")
    return f"d-{name}"


def _interval(value: float, width: float = 0.05) -> dict[str, float]:
    return {"ci_low": value - width, "ci_high": value + width, "n_items": 40, "n_clusters": 8}


def _deliver_head_trial(
    lake: Lake, study: str, draw: random.Random, about: dict[str, Any], shape: tuple[int, int]
) -> None:
    delivery_id = _answer(lake, study, about)
    rows, items = [], []
    for layer in range(shape[0]):
        for head in range(shape[1]):
            is_strong = not about["is_control"] and (layer, head) == ((shape[0] - 1, 1))
            score = 0.9 if is_strong else round(draw.random() * 0.3, 4)
            missing = (layer, head) == (0, shape[1] - 1)
            value = float("nan") if missing else score
            rows.append({"layer": layer, "head": head, "score": value} | _interval(value))
            items += [{"layer": layer, "head": head, "item": item, "value": value} for item in range(4)]
    lake.deliver("head_scores", delivery_id, _with_id(delivery_id, rows))
    lake.deliver("item_scores", delivery_id, _with_id(delivery_id, items))
    one = {"split_half": 0.94, "spearman_brown": 0.97, "top_k": 5, "top_k_jaccard": 0.8, "n_items": 40}
    lake.deliver("reliability", delivery_id, _with_id(delivery_id, [one]))


def _deliver_behavior(lake: Lake, study: str, draw: random.Random, about: dict[str, Any]) -> None:
    loss = 1.0 + draw.random()
    for probe, unit, value, chance in (("copy_loss", "nats", loss, 4.16), ("copy_accuracy", "fraction", 0.75, 1 / 64)):
        spec = '{"promptset_spec": {"accuracy": "copy_accuracy"}}'
        facts = {"level": "behavior", "unit": unit, "low": 0.0, "high": None, "probe": probe, "spec": spec}
        delivery_id = _answer(lake, study, about | facts)
        row = {"readout": probe, "value": value, "is_accuracy": unit == "fraction", "chance": chance}
        lake.deliver("behavior", delivery_id, _with_id(delivery_id, [row | _interval(value)]))
        by_depth = [curve_row(probe, "depth", x, unit=unit, value=value) | _interval(value) for x in (0.0, 0.5, 1.0)]
        lake.deliver("curves", delivery_id, _with_id(delivery_id, by_depth))
        depths = [{"item": item, "condition": "depth", "value": item / 2} for item in range(3)]
        lake.deliver("item_conditions", delivery_id, _with_id(delivery_id, depths))


def curve_row(measure: str, x_name: str, x: float, **changes: Any) -> dict[str, Any]:
    """A point of a curve, without its delivery; `changes` replace columns."""
    row = {"measure": measure, "x_name": x_name, "x": x, "unit": "fraction", "value": 0.5} | _interval(0.5)
    assert changes.keys() <= row.keys()
    return row | changes


def _deliver_lens(lake: Lake, study: str, about: dict[str, Any]) -> None:
    facts = {"level": "curve", "unit": "rank", "low": 1.0, "high": None, "probe": "logit_lens"}
    delivery_id = _answer(lake, study, about | facts)
    points = [("answer_rank", "rank", 8.0, 2.0), ("answer_probability", "probability", 0.1, 0.6)]
    rows, items = [], []
    for measure, unit, first, last in points:
        for layer, value in enumerate((first, float("nan"), last)):
            rows.append(curve_row(measure, "layer", float(layer), unit=unit, value=value) | _interval(value))
            at = {"measure": measure, "x_name": "layer", "x": float(layer)}
            items += [at | {"item": item, "value": value} for item in range(3)]
    lake.deliver("curves", delivery_id, _with_id(delivery_id, rows))
    lake.deliver("curve_items", delivery_id, _with_id(delivery_id, items))


def _deliver_ablation(
    lake: Lake, study: str, draw: random.Random, about: dict[str, Any], shape: tuple[int, int]
) -> None:
    facts = {"level": "intervention", "unit": "nats", "low": None, "high": None, "probe": "head_ablation"}
    delivery_id = _answer(lake, study, about | facts)
    effects = [
        {"intervention": "mean", "layer": layer, "head": head, "position_label": None, "effect": effect}
        | _interval(effect)
        | dict.fromkeys(("normalised_effect", "normalised_low", "normalised_high"))
        for layer in range(shape[0])
        for head in range(shape[1])
        for effect in [draw.gauss(0, 0.2)]
    ]
    lake.deliver("head_effects", delivery_id, _with_id(delivery_id, effects))
    control = {"control_mean": 0.1, "control_low": -0.1, "control_high": 0.4, "n_draws": 100, "n_distinct": 100}
    none = {"control_mean": None, "control_low": None, "control_high": None, "n_draws": 0, "n_distinct": None}
    rows = [
        {"k": 1, "value": 1.2, "p_value": 0.01} | _interval(1.2) | control,
        {"k": 8, "value": 2.5, "p_value": None} | _interval(2.5) | none,
    ]
    lake.deliver("controls", delivery_id, _with_id(delivery_id, rows))


def _with_id(delivery_id: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.lit(delivery_id).alias("delivery_id"))
