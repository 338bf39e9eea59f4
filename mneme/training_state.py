"""Unfinished training in a folder: written in one piece, found again after a kill, refused when it is another's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mneme.errors import BadInput

CHECKPOINTS = "checkpoints"
_NOTES = "training.json"


@dataclass
class Notes:
    """What has happened so far: plain JSON.

    step: updates done; seconds: spent in updates; losses: of the latest steps; measures: one row per number measured
    (step, measure, value, unit, ci_low, ci_high, n_items), None where there is none.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)


def checkpoint(folder: Path, step: int) -> Path:
    """Where the weights after `step` updates lie below a model's folder."""
    return folder / CHECKPOINTS / f"step-{step}"


def save_state(
    folder: Path, spec: Mapping[str, Any], notes: Notes, model: nn.Module, optimizers: Sequence[Optimizer]
) -> None:
    """Write weights, optimizers and random state, then the notes that name them: a kill leaves a whole state."""
    tensors, numbers = _optimizer_states(optimizers)
    tensors |= {f"model.{name}": value for name, value in _weights(model).items()}
    tensors |= _random_state(model)
    weights = folder / f"step-{notes.step}.safetensors"
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    _replace(weights, lambda path: save_file(whole, path))
    content = {"spec": spec, "file": weights.name, "sha256": _sha256(weights), "numbers": numbers, **asdict(notes)}
    _replace(folder / _NOTES, lambda path: path.write_text(json.dumps(content), encoding="utf-8"))
    for older in folder.glob("step-*.safetensors"):
        if older != weights:
            older.unlink()


def find_state(
    folder: Path, spec: Mapping[str, Any], kept: Sequence[int], model: nn.Module, optimizers: Sequence[Optimizer]
) -> Notes | None:
    """Put a saved state back into the model, the optimizers and torch's random state; None when there is none.

    A state that is damaged, or lacks one of the `kept` steps that it has passed, counts as none: training starts anew.
    Raises BadInput when the folder holds training of another spec.
    """
    content = _read_notes(folder)
    if content is None:
        return None
    _refuse_other(folder, content["spec"], spec)
    weights = folder / content["file"]
    is_whole = weights.is_file() and _sha256(weights) == content["sha256"]
    if not is_whole or any(not checkpoint(folder, step).is_dir() for step in kept if step <= content["step"]):
        return None
    tensors = load_file(weights)
    with torch.no_grad():
        for name, value in _weights(model).items():
            value.copy_(tensors[f"model.{name}"])
    _restore_optimizers(optimizers, tensors, content["numbers"])
    _restore_random_state(model, tensors)
    return Notes(content["step"], content["seconds"], content["losses"], content["measures"])


def write_folder(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder that appears at `target` whole or not at all, in place of what was there."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for path in temporary.rglob("*"):
        _sync(path)
    _sync(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _sync(target.parent)


def _read_notes(folder: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content


def _refuse_other(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        raise BadInput(
            f"{folder} holds unfinished training of another model (its {', '.join(differing)[:200]} differs): "
            "remove the folder, or choose another one"
        )


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}  # shared ones once


def _optimizer_states(optimizers: Sequence[Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain numbers of each parameter's state, under `optimizer.<which>.<parameter>.<name>`."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for which, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                place = tensors if isinstance(value, Tensor) else numbers
                place[f"optimizer.{which}.{parameter}.{name}"] = value
    return tensors, numbers


def _restore_optimizers(
    optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """The groups (rates, betas) are the optimizers' own: the spec says that they are the same."""
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for key, value in {**tensors, **numbers}.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            which, parameter, name = rest.split(".", 2)
            states[int(which)].setdefault(int(parameter), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_state(model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    state = {"random.cpu": torch.get_rng_state()}
    return state | {"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _restore_random_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], next(model.parameters()).device)


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    write(temporary)
    _sync(temporary)
    temporary.replace(target)
    _sync(target.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
