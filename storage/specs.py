"""What can be asked for: frozen, typed specs that refuse a stray key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from storage.identity import digest

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,79}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Parameters = dict[str, JsonValue]
PRIMARY = "primary"
REVISION = r"^\w[\w.\-/+]*$"  # a branch, tag or commit; it becomes a file name in the hub's cache
STEP_REVISION = r"^[\w.\-/]*\{step\}[\w.\-/]*$"


def _stays_inside(text: str) -> str:
    if ".." in text or text.startswith("/"):
        raise ValueError("'..' and a '/' in front would leave the hub's cache: name a model, branch, tag or commit")
    return text


class Spec(BaseModel):
    """Base: frozen, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RecipeSource(Spec):
    """A reference model trained here from nothing."""

    kind: Literal["recipe"]
    recipe: Name
    parameters: Parameters = {}


class LocalSource(Spec):
    """A folder written by `save_pretrained`; a relative path starts at the YAML file's folder."""

    kind: Literal["local"]
    path: Annotated[str, Field(min_length=1, max_length=4000)]


class HubSource(Spec):
    """A model of the hub; a revision that is no commit is resolved and the commit recorded."""

    kind: Literal["hub"]
    id: Annotated[str, Field(pattern=r"^[\w.\-]+(/[\w.\-]+)?$", max_length=200), AfterValidator(_stays_inside)]
    revision: Annotated[str, Field(pattern=REVISION, max_length=200), AfterValidator(_stays_inside)] = "main"


class ModelSpec(Spec):
    """configs/models/<name>.yaml; `step_revision` names a hub model's revision at a training step: "step{step}".

    `baseline` says that the model is one that others must beat: `untrained`, or a `bigram` model.
    """

    description: str = ""
    source: Annotated[RecipeSource | LocalSource | HubSource, Field(discriminator="kind")]
    dtype: Dtype = "float32"
    bos_mode: Literal["auto", "native", "eot_as_bos", "none"] = "auto"
    step_revision: (
        Annotated[str, Field(pattern=STEP_REVISION, max_length=200), AfterValidator(_stays_inside)] | None
    ) = None
    baseline: Literal["untrained", "bigram"] | None = None


class PromptsetSpec(Spec):
    """configs/promptsets/<name>.yaml; `file` (CSV or JSONL) feeds a generator that takes the user's own rows.

    `accuracy` names the probe that says how well this behavior is done: `set_accuracy` where the right answers are a
    set, `copy_accuracy` where nothing but the next token is asked.
    """

    description: str = ""
    generator: Name
    parameters: Parameters = {}
    control_of: Name | None = None
    file: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    accuracy: Literal["answer_accuracy", "set_accuracy", "copy_accuracy"] | None = None


class ProbeSpec(Spec):
    """configs/probes/<name>.yaml: the defaults and the named variants of a probe's parameters."""

    description: str = ""
    parameters: Parameters = {}
    variants: dict[Name, Parameters] = {}

    @field_validator("variants")
    @classmethod
    def _primary_is_taken(cls, variants: dict[str, Parameters]) -> dict[str, Parameters]:
        if PRIMARY in variants:
            raise ValueError(f"'{PRIMARY}' names the default parameters: give the variant another name")
        return variants


class ModelChoice(Spec):
    """A model of a study: its name, or `{model: ..., seeds: [...]}` for other training seeds than the study's."""

    model: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None


class ProbeChoice(Spec):
    """A probe of a study: its name, or `{probe: ..., variant: ...}`."""

    probe: Name
    variant: Name = PRIMARY


class ClaimSpec(Spec):
    """A claim of a study: what one select finds, beside that of an optional control, and what is expected of the two.

    `found` and `control` are SQL over the marts and give one row per unit, with the columns unit_id and value. See
    `mneme.claims` for `expected`, `margin`, `level` and `least_n`; `unit` is that of the values. `needs` says what a
    unit must have to count, in words that follow "a unit needs": the reason of a claim that too few units can test.
    """

    description: str = ""
    found: Annotated[str, Field(min_length=1)]
    control: Annotated[str, Field(min_length=1)] | None = None
    expected: Literal["above", "below", "within"]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    least_n: Annotated[int, Field(ge=2)] = 5
    unit: Annotated[str, Field(min_length=1)]
    needs: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _equality_needs_a_margin(self) -> ClaimSpec:
        if self.expected == "within" and self.margin == 0:
            raise ValueError("'within' needs a margin above 0: no interval lies within nothing")
        return self


class PhaseChangesSpec(Spec):
    """Which measures of `mart.dynamics` are searched for a phase change, each curve on its own."""

    measures: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]

    @field_validator("measures")
    @classmethod
    def _once_each(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(measures)) != len(measures):
            raise ValueError("the same measure stands there twice: name each once")
        return measures


class StudySpec(Spec):
    """configs/studies/<name>.yaml: a grid of trials, or the grids of the studies that `includes` names, or both.

    With `steps`, each model is probed after each of these training steps instead of at the end of its training. What is
    included brings its trials, its phase changes, its overlaps and its claims. `overlaps` names those of its probes
    whose circuits are compared with each other, model by model. `workers` is how many models are worked on at once, by
    processes of this machine or by Ray (`runner`); it is part of no identity.
    """

    description: str = ""
    includes: tuple[Name, ...] = ()
    models: tuple[ModelChoice, ...] = ()
    model_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    promptsets: tuple[Name, ...] = ()
    promptset_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    probes: tuple[ProbeChoice, ...] = ()
    probe_seed: Seed = 0
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    trace_limit_mib: Annotated[float, Field(ge=0)] = 512.0
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    runner: Literal["process", "ray"] = "process"
    overrides: dict[str, Any] = {}
    phase_changes: PhaseChangesSpec | None = None
    overlaps: tuple[ProbeChoice, ...] = ()
    claims: dict[Name, ClaimSpec] = {}

    @field_validator("models", "probes", "overlaps", mode="before")
    @classmethod
    def _names_are_choices(cls, members: Any, field: ValidationInfo) -> Any:
        if not isinstance(members, list | tuple):
            return members
        kind = "model" if field.field_name == "models" else "probe"
        return [{kind: each} if isinstance(each, str) else each for each in members]

    @field_validator("includes", "models", "model_seeds", "steps", "promptsets", "promptset_seeds", "probes")
    @classmethod
    def _no_duplicates(cls, members: tuple[Any, ...]) -> tuple[Any, ...]:
        named = [each.model if isinstance(each, ModelChoice) else each for each in members]
        if len(set(named)) != len(named):
            raise ValueError("the same member stands there twice: name each once")
        return members

    @model_validator(mode="after")
    def _asks_something(self) -> StudySpec:
        asked = {"models": self.models, "promptsets": self.promptsets, "probes": self.probes}
        empty = [name for name, members in asked.items() if not members]
        if empty and (not self.includes or len(empty) < len(asked)):
            raise ValueError(
                f"the key '{empty[0]}' is missing: name models, promptsets and probes, or `includes` alone"
            )
        return self


class TrialSpec(Spec):
    """One model x one promptset x one probe, with their seeds: what was asked.

    `model_seed` is None for weights that no seed of ours made (local, hub); `step` is a step of the model's training,
    None for the finished model; `ranked_on` is the promptset that the parameter `rank_on` names, None where heads are
    ranked on the trial's own prompts or not at all.
    """

    model: Name
    model_spec: ModelSpec
    model_seed: Seed | None
    step: Annotated[int, Field(ge=0)] | None = None
    promptset: Name
    promptset_spec: PromptsetSpec
    promptset_seed: Seed
    probe: Name
    variant: Name
    parameters: Parameters
    probe_seed: Seed
    ranked_on: PromptsetSpec | None = None

    def asked(self) -> dict[str, Any]:
        """The spec without what has no bearing on the answer (descriptions, and of a finished model its steps).

        What was added to specs later is left out where it is not set: the trials of before keep their ids.
        """
        idle = {"description": True} | ({"step_revision": True} if self.step is None else {})
        idle |= {"baseline": True} if self.model_spec.baseline is None else {}
        exclude: dict[str, Any] = {"model_spec": idle, "promptset_spec": _unsaid(self.promptset_spec)}
        exclude["ranked_on"] = True if self.ranked_on is None else _unsaid(self.ranked_on)
        return self.model_dump(mode="json", exclude=exclude | ({"step": True} if self.step is None else {}))

    @property
    def trial_id(self) -> str:
        """Hash of what was asked: 16 hex digits."""
        return digest(self.asked(), 16)

    @property
    def finished_model_label(self) -> str:
        """Short name of the model at the end of its training: model[seed]."""
        return self.model if self.model_seed is None else f"{self.model}[{self.model_seed}]"

    @property
    def model_label(self) -> str:
        """Short name of the model: model[seed], or model[seed]@step."""
        return self.finished_model_label + ("" if self.step is None else f"@{self.step}")

    @property
    def finished_pairing_label(self) -> str:
        """Short name of the model at the end of its training and the promptset: model[seed] / promptset[seed]."""
        return f"{self.finished_model_label} / {self.promptset}[{self.promptset_seed}]"

    @property
    def pairing_label(self) -> str:
        """Short name of the model and the promptset: model[seed]@step / promptset[seed]."""
        return f"{self.model_label} / {self.promptset}[{self.promptset_seed}]"

    @property
    def label(self) -> str:
        """Short name for people: model[seed]@step / promptset[seed] / probe[variant]."""
        variant = "" if self.variant == PRIMARY else f"[{self.variant}]"
        return f"{self.pairing_label} / {self.probe}{variant}"


def _unsaid(promptset: PromptsetSpec) -> dict[str, bool]:
    """What of a promptset's spec has no bearing on a trial's answer, or is not set."""
    return {"description": True} | ({"accuracy": True} if promptset.accuracy is None else {})


def is_name(text: str) -> bool:
    """Whether a text may name a member, a study or a file of ours."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,79}", text) is not None
