"""Promptsets: generated, tokenized prompts or clean/corrupt pairs, and the registry of their generators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import BadInput
from mneme.registry import Registry, member_of

BosMode = Literal["native", "eot_as_bos", "none"]


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that generators use."""

    def __call__(self, text: str, *, add_special_tokens: bool = ...) -> Any:
        """Encode; the result has `input_ids`."""

    def decode(self, token_ids: Any) -> str:
        """Text of the ids."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """What a generator may know of a model: its tokens, never its weights.

    `special_ids` are never drawn; `first_id` is what `bos_mode` puts in front of a prompt (None for `none`);
    `context` is the model's longest prompt in tokens.
    """

    size: int
    context: int
    bos_mode: BosMode
    first_id: int | None
    special_ids: frozenset[int]
    tokenizer: Tokenizer | None = None

    @property
    def ordinary_ids(self) -> Tensor:
        """Every id that is not special: [vocab] int64."""
        return torch.tensor([each for each in range(self.size) if each not in self.special_ids], dtype=torch.int64)


@dataclass(frozen=True)
class Promptset:
    """Prompts (or clean/corrupt pairs) of one generator, seed and vocabulary.

    Shape: clean: Batch of n items; corrupt: Batch aligned with it, or None; correct_ids, wrong_ids [item answer]
    int64, -1 where an item has fewer answers, or None; clusters [item] int64 groups prompts that share a template
    (METHODS 4). `facts` holds what probes need to know (period, offset, copies, ...), JSON values only; `conditions`
    name -> [item] float64, a number by which prompts differ on purpose (depth, place, length, a concept 0 or 1), NaN
    where an item has none; `texts` the readable prompts; `dropped` reason -> count of rejected prompts.
    """

    clean: Batch
    corrupt: Batch | None = None
    correct_ids: Tensor | None = None
    wrong_ids: Tensor | None = None
    clusters: Tensor | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that pairs align and answers cover the items."""
        if self.corrupt is not None and not torch.equal(self.corrupt.lengths, self.clean.lengths):
            raise BadInput("clean and corrupt prompts differ in length: pairs must align token by token")
        for name, answers in (("correct", self.correct_ids), ("wrong", self.wrong_ids)):
            if answers is not None and (answers.ndim != 2 or len(answers) != len(self.clean)):
                raise BadInput(f"{name} answers must be [item answer] with one row per prompt")
        for name, condition in self.conditions.items():
            if condition.shape != (len(self.clean),) or condition.dtype != torch.float64:
                raise BadInput(f"condition '{name}' must be one float64 number per prompt")

    def __len__(self) -> int:
        return len(self.clean)

    def select(self, items: slice | Tensor) -> Promptset:
        """The named items as a promptset of their own."""

        def cut(answers: Tensor | None) -> Tensor | None:
            return None if answers is None else answers[items]

        index = torch.arange(len(self))[items].tolist()
        return Promptset(
            clean=self.clean.select(items),
            corrupt=None if self.corrupt is None else self.corrupt.select(items),
            correct_ids=cut(self.correct_ids),
            wrong_ids=cut(self.wrong_ids),
            clusters=cut(self.clusters),
            facts=self.facts,
            texts=None if self.texts is None else tuple(self.texts[each] for each in index),
            dropped=self.dropped,
            conditions={name: condition[items] for name, condition in self.conditions.items()},
        )


@dataclass(frozen=True)
class PromptsetMember:
    """A registered generator: `build(vocabulary, seed=..., **parameters)`."""

    name: str
    module: str
    build: Callable[..., Promptset]
    needs_tokenizer: bool
    source: str


promptsets: Registry[PromptsetMember] = Registry("promptset", "mneme.promptsets")


def promptset(*, needs_tokenizer: bool, source: str) -> Callable[[Callable[..., Promptset]], Callable[..., Promptset]]:
    """Register a generator `(vocabulary, *, seed, **parameters) -> Promptset` under its function name."""

    def decorate(build: Callable[..., Promptset]) -> Callable[..., Promptset]:
        name, module = member_of(build)
        promptsets.register(name, PromptsetMember(name, module, build, needs_tokenizer, source), module)
        return build

    return decorate
