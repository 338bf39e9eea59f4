"""Steps of a model's training: which there are, before anything is trained or fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mneme.errors import BadInput
from mneme.steps import kept_steps
from storage.signatures import literal_defaults
from storage.specs import HubSource, ModelSpec, RecipeSource


def refuse_absent_steps(name: str, model: ModelSpec, steps: Sequence[int]) -> None:
    """Raise BadInput, naming the mend, when a model has no such steps."""
    source = model.source
    if not steps:
        return
    if isinstance(source, RecipeSource):
        kept = _steps_kept_by(source)
        absent = [step for step in steps if kept is not None and step not in kept]
        if absent:
            raise unkept(name, absent[0], kept or ())
    elif not isinstance(source, HubSource):
        raise BadInput(f"model {name} is a folder and has no steps: take `steps` out of the study, or train it here")
    elif model.step_revision is None:
        raise BadInput(
            f"model {name} does not say where its steps are: set step_revision in its YAML, such as 'step{{step}}'"
        )


def unkept(name: str, step: int, kept: Sequence[int]) -> BadInput:
    """The refusal of a step that a recipe does not keep."""
    known = ", ".join(map(str, kept)) or "none"
    return BadInput(f"model {name} does not keep step {step} of its training (kept: {known}): set `keep` in its YAML")


def source_at(model: ModelSpec, step: int | None) -> HubSource:
    """A hub model's source at a step of its training."""
    if not isinstance(model.source, HubSource):
        raise TypeError("only a hub model has revisions")
    if step is None or model.step_revision is None:
        return model.source
    return model.source.model_copy(update={"revision": model.step_revision.format(step=step)})


def _steps_kept_by(source: RecipeSource) -> tuple[int, ...] | None:
    """The steps that a recipe keeps; None when only the recipe itself can know."""
    parameters: dict[str, Any] = {**literal_defaults("recipe", source.recipe), **source.parameters}
    keep, max_steps = parameters.get("keep"), parameters.get("max_steps")
    if keep is None or not isinstance(max_steps, int):
        return None
    return kept_steps(f"{source.recipe}.keep", keep, max_steps)
