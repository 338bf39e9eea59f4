"""Recipes: how reference models are trained from nothing, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mneme.registry import Registry, member_of


@dataclass(frozen=True)
class Recipe:
    """A registered recipe: `train(folder, *, seed, progress, **parameters) -> facts`.

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
