"""Scenes in words: a context, questions on it with their answers, and the places that matter in the text."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

QUESTION = "question"  # the span of the first question
_NO_SPACE_BEFORE = re.compile(r"[.,;:?!)\]]")


@dataclass(frozen=True)
class Told:
    """A text and the character span [start, end) of each named word or phrase in it."""

    text: str
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What stands before an answer, the answer, and the answers that it must beat.

    `text` has no space at its end; `glue` is what stands between it and the answer. `answer` is one word; where
    several are right, `correct` lists all of them and `answer` is the one that is said. `after` follows the answer
    where the text goes on.
    """

    text: Told
    answer: str
    wrong: tuple[str, ...]
    correct: tuple[str, ...] = ()
    glue: str = " "
    after: str = "."

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every right answer."""
        return self.correct or (self.answer,)


@dataclass(frozen=True)
class Scene:
    """A context and the questions on it.

    The prompt is the context with the first question, or alone where nothing is asked; a document for training is the
    context with all of them, each with its answer. `corrupt` is the whole counterpart of the prompt. `binding` names
    what must be new in a held-out scene (the pair of names, the fact, the key with its value). `cluster` groups scenes
    of one template (METHODS 4); `conditions` are numbers by which scenes differ on purpose (depth, place).
    """

    context: Told
    questions: tuple[Question, ...]
    corrupt: Told | None = None
    binding: tuple[str, ...] = ()
    cluster: str = ""
    conditions: Mapping[str, float] = field(default_factory=dict)

    @property
    def prompt(self) -> Told:
        """The context and the first question, if there is one, with the span `question` over its text."""
        told = joined([self.context, *(question.text for question in self.questions[:1])])
        length = len(self.questions[0].text.text) if self.questions else 0
        if not length or length == len(told.text):
            return told
        return Told(told.text, {**told.spans, QUESTION: (len(told.text) - length, len(told.text))})

    def document(self) -> Told:
        """The whole text with every answer said; spans `answer_0`, `answer_1`, ... hold the answers."""
        parts: list[Told] = [self.context]
        glues = [" "]
        for number, question in enumerate(self.questions):
            parts += [Told(question.text.text), told(f"{{answer_{number}}}", **{f"answer_{number}": question.answer})]
            parts.append(Told(question.after))
            glues += [" ", question.glue, " "]
        return joined(parts, glues)


def told(template: str, **words: str) -> Told:
    """Fill the `{slots}` of a template and remember where each stands.

    A slot may stand there once; raises KeyError for a slot without a word and ValueError for one that stands twice.
    """
    text, spans = "", {}
    for literal, slot, _, _ in string.Formatter().parse(template):
        text += literal
        if slot is not None:
            if slot in spans:
                raise ValueError(f"slot '{slot}' stands twice in: {template}")
            spans[slot] = (len(text), len(text) + len(words[slot]))
            text += words[slot]
    return Told(text, spans)


def joined(parts: Sequence[Told], glues: Sequence[str] | None = None) -> Told:
    """The parts as one text, with one space between two of them but none before punctuation; empty parts vanish.

    glues: what stands before each part instead of the space. Raises ValueError when two parts name the same span.
    """
    text = ""
    spans: dict[str, tuple[int, int]] = {}
    for part, glue in zip(parts, glues or [" "] * len(parts), strict=True):
        if not part.text:
            continue
        text += glue if text and not _NO_SPACE_BEFORE.match(part.text) else ""
        doubled = spans.keys() & part.spans.keys()
        if doubled:
            raise ValueError(f"span '{min(doubled)}' stands in two parts of a text")
        spans |= {name: (start + len(text), end + len(text)) for name, (start, end) in part.spans.items()}
        text += part.text
    return Told(text, spans)
