"""Recipes: how reference models are trained from nothing, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mneme.progress import Progress, silent
from mneme.registry import Registry, member_of


def unheard(step: int, measures: Mapping[str, float]) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Workshop:
    """What a recipe gets from outside.

    folder: where the finished model goes, as `save_pretrained` files; the weights kept on the way are folders of the
    same kind below it, `checkpoints/step-<n>/`.
    state: a folder that outlives a killed process: unfinished training is found there again. None keeps nothing.
    progress: told of each check; log: told of numbers measured while training (step, {measure: value}).
    """

    folder: Path
    state: Path | None = None
    progress: Progress = silent
    log: Callable[[int, Mapping[str, float]], None] = unheard


@dataclass(frozen=True)
class Recipe:
    """A registered recipe: `train(workshop, *, seed, **parameters) -> facts`.

    Writes a `save_pretrained` folder (safetensors, config; tokenizer when there is one) and returns JSON facts
    (steps, tokens, seconds, final loss, accuracies).
    """

    name: str
    module: str
    train: Callable[..., dict[str, Any]]


recipes: Registry[Recipe] = Registry("recipe", "mneme.recipes")


def recipe() -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Register a training function under its name."""

    def decorate(train: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        name, module = member_of(train)
        recipes.register(name, Recipe(name, module, train), module)
        return train

    return decorate
