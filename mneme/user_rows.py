"""One row of a user's file into tokens, or the reason why it cannot be used."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from mneme.encoding import begun, encode
from mneme.errors import NotApplicable
from mneme.promptset import Tokenizer, Vocabulary

POSITION = "position_"
CONDITION = "condition_"


class Dropped(Exception):
    """A row that cannot be used; its text is the reason, the same for all rows with that fault."""


@dataclass(frozen=True)
class Row:
    """A usable row: token ids with the first token in front, answers, positions and conditions by name, the text."""

    clean: list[int]
    corrupt: list[int]
    correct: list[int]
    wrong: list[int]
    labels: dict[str, int]
    cluster: str
    text: str
    conditions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """Reads rows with the given columns for one vocabulary."""

    vocabulary: Vocabulary
    tokenizer: Tokenizer
    chat_template: bool
    columns: frozenset[str]

    def read(self, row: dict[str, Any]) -> Row:
        """The row in tokens; raises Dropped with the reason."""
        for name in sorted(self.columns):
            if name not in row or row[name] is None:
                raise Dropped(f"no {name}")
        pairs = "corrupt" in self.columns
        text = _text(row, "clean" if pairs else "prompt")
        prompt = self._prompt(text)
        clean = self._tokens(prompt)
        corrupt = self._tokens(self._prompt(_text(row, "corrupt"))) if pairs else []
        if pairs and len(corrupt) != len(clean):
            raise Dropped("clean and corrupt differ in their number of tokens")
        if pairs and corrupt == clean:
            raise Dropped("clean and corrupt are the same")
        correct, wrong = (
            self._answers(row, name, prompt) if name in self.columns else [] for name in ("correct", "wrong")
        )
        if set(correct) & set(wrong):
            raise Dropped("correct and wrong are the same token")
        labels = {"end": len(clean) - 1}
        for name in sorted(self.columns):
            if name.startswith(POSITION):
                labels[name.removeprefix(POSITION)] = self._position(row[name], text, prompt, clean)
        conditions = {
            name.removeprefix(CONDITION): _number(name, row[name])
            for name in sorted(self.columns)
            if name.startswith(CONDITION)
        }
        return Row(clean, corrupt, correct, wrong, labels, str(row.get("cluster", "")), text, conditions)

    def _prompt(self, text: str) -> str:
        if not self.chat_template:
            return text
        chat: Any = self.tokenizer
        if not getattr(chat, "chat_template", None):
            raise NotApplicable("chat_template is set, and this model's tokenizer has no chat template")
        turn = [{"role": "user", "content": text}]
        return str(chat.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def _tokens(self, prompt: str) -> list[int]:
        ids = begun(self.vocabulary, encode(self.tokenizer, prompt))
        if len(ids) > self.vocabulary.context:
            raise Dropped(f"longer than the model's context of {self.vocabulary.context} tokens")
        if not ids:
            raise Dropped("no tokens")
        return ids

    def _answers(self, row: dict[str, Any], name: str, prompt: str) -> list[int]:
        words = row[name] if isinstance(row[name], list) else [row[name]]
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise Dropped(f"{name} is not a word")
        return [self._answer(name, word, prompt) for word in words]

    def _answer(self, name: str, word: str, prompt: str) -> int:
        """The one token that the word is right after the prompt, leading space included (METHODS 0)."""
        glue = "" if prompt[-1:].isspace() or word[:1].isspace() else " "
        before, whole = encode(self.tokenizer, prompt), encode(self.tokenizer, prompt + glue + word)
        if whole[: len(before)] != before:
            raise Dropped(f"{name} changes the tokens before it (does the prompt end in a space?)")
        if len(whole) != len(before) + 1:
            raise Dropped(f"{name} is not a single token")
        return whole[-1]

    def _position(self, value: Any, text: str, prompt: str, clean: list[int]) -> int:
        start = prompt.find(text)
        index = _as_index(value)
        if index is None:
            return self._last_token_of(str(value), text, prompt, start, clean)
        first = len(self._own_tokens(prompt[:start].rstrip(" "), clean))  # a space belongs to the word after it
        own = len(self._own_tokens(prompt[: start + len(text)], clean)) - first
        if not -own <= index < own:
            raise Dropped("a position lies outside its prompt")
        return len(clean) - len(encode(self.tokenizer, prompt)) + first + index % own

    def _last_token_of(self, word: str, text: str, prompt: str, start: int, clean: list[int]) -> int:
        if text.count(word) != 1 or not word:
            raise Dropped("a position's word does not occur exactly once in its prompt")
        end = start + text.index(word) + len(word)
        before = self._own_tokens(prompt[:end], clean)
        return len(clean) - len(encode(self.tokenizer, prompt)) + len(before) - 1

    def _own_tokens(self, part: str, clean: list[int]) -> list[int]:
        """Tokens of the beginning of the prompt; drops the row where a token reaches across the cut."""
        ids = encode(self.tokenizer, part)
        shift = 0 if clean[: len(ids)] == ids else 1
        if clean[shift : shift + len(ids)] != ids:
            raise Dropped("a position's word ends inside a token")
        return ids


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str) or not row[name].strip():
        raise Dropped(f"{name} is not a text")
    return str(row[name])


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise Dropped(f"{name} is not a number")
    return number


def _as_index(value: Any) -> int | None:
    """A whole number, also as text (CSV knows nothing else); None for a word."""
    try:
        return int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        return None
