"""Scenes into a promptset: distinct, single-token answers, clean and corrupt aligned, every reject counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from mneme.encoding import answer_ids, begun, encode, padded, tokenizer_of
from mneme.errors import BadInput, NotApplicable
from mneme.promptset import Promptset, Vocabulary
from mneme.stories import QUESTION, Question, Scene, Told
from mneme.user_rows import Row

_DRAWS_PER_ITEM = 50
_LEAST_DRAWS = 2000
END = "end"


class Rejected(Exception):
    """A scene that cannot be used with this tokenizer; its text is the reason, the same for all with that fault."""


@dataclass(frozen=True)
class SceneReader:
    """Turns the prompt of a scene into tokens.

    Labels: each span of the prompt names the last token of its words, `end` the last token of the prompt. `wide` spans
    give `<name>_first` too, the first token of the words, as `question` always does; `followed` spans give
    `<name>_next`, the token after them.
    """

    vocabulary: Vocabulary
    who: str
    wide: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()
    _answers: Callable[[str, str, str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare the tokenizer."""
        tokenizer: Any = tokenizer_of(self.vocabulary, self.who)
        if not getattr(tokenizer, "is_fast", False):
            raise NotApplicable(f"{self.who} needs a tokenizer that knows character offsets (a fast one)")
        object.__setattr__(self, "_answers", lru_cache(maxsize=None)(self._answer))

    def read(self, scene: Scene) -> Row:
        """The prompt of a scene in tokens; raises Rejected with the reason."""
        prompt = scene.prompt
        clean, labels = self._tokens(prompt)
        corrupt: list[int] = []
        if scene.corrupt is not None:
            corrupt, _ = self._tokens(scene.corrupt)
            if len(corrupt) != len(clean):
                raise Rejected("clean and corrupt differ in their number of tokens")
            if corrupt == clean:
                raise Rejected("clean and corrupt are the same")
        correct, wrong = self._asked(prompt, scene.questions[0]) if scene.questions else ([], [])
        return Row(clean, corrupt, correct, wrong, labels, scene.cluster, prompt.text, dict(scene.conditions))

    def _asked(self, prompt: Told, question: Question) -> tuple[list[int], list[int]]:
        """The correct and the wrong answers as tokens."""
        last_word = prompt.text.rsplit(" ", maxsplit=1)[-1]
        correct, wrong = (
            [self._answers(last_word, question.glue, word) for word in words]
            for words in (question.accepted, question.wrong)
        )
        if set(correct) & set(wrong):
            raise Rejected("a correct and a wrong answer are the same token")
        return correct, wrong

    def _tokens(self, prompt: Told) -> tuple[list[int], dict[str, int]]:
        tokenizer: Any = self.vocabulary.tokenizer
        encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(encoded.input_ids), list(encoded.offset_mapping)
        row = begun(self.vocabulary, ids)
        if len(row) > self.vocabulary.context:
            raise Rejected(f"longer than the model's context of {self.vocabulary.context} tokens")
        shift = len(row) - len(ids)
        labels = {END: len(row) - 1}
        for name, (start, end) in prompt.spans.items():
            first, last = _cover(offsets, start, end)
            labels[name] = last + shift
            if name in (*self.wide, QUESTION):
                labels[f"{name}_first"] = first + shift
            if name in self.followed:
                labels[f"{name}_next"] = min(last + shift + 1, len(row) - 1)
        return row, labels

    def _answer(self, last_word: str, glue: str, word: str) -> int:
        """The one token that an answer is right after the prompt's last word."""
        tokenizer: Any = self.vocabulary.tokenizer
        before, whole = encode(tokenizer, last_word), encode(tokenizer, last_word + glue + word)
        if not glue and len(whole) == len(before):  # both written together are a token of their own: '18' and '00'
            whole = [*before, *encode(tokenizer, word)]
            if tokenizer.decode(whole) != last_word + word:
                raise Rejected("an answer is not a single token")
        if len(whole) != len(before) + 1 or whole[:-1] != before:
            raise Rejected("an answer is not a single token")
        if whole[-1] in self.vocabulary.special_ids:
            raise Rejected("an answer is not in the vocabulary")
        return whole[-1]


def promptset_of_scenes(
    reader: SceneReader, draw: Callable[[], Scene], n_items: int, facts: Mapping[str, Any], dropped: Mapping[str, int]
) -> Promptset:
    """`n_items` distinct prompts from scenes that `draw` makes, with their answers, pairs, labels and clusters.

    Labels and conditions are those that every scene has; there are corrupt prompts where every scene has one.
    dropped: rejects that the caller counted already. Facts get `bos_mode`, `offset` (index of the first token of the
    text) and, where something is asked, `chance` (METHODS 4): for `answer_accuracy` and `top1_accuracy` that of a guess
    among the correct and wrong answers and among all tokens; for `set_accuracy` what almost equal probabilities give,
    where the larger set wins and equal ones win half of the time. A `chance` among `facts` goes before these.
    Raises: BadInput when the scenes run out of distinct usable prompts; it names the commonest reason.
    """
    rows: list[Row] = []
    seen: set[tuple[int, ...]] = set()
    reasons: Counter[str] = Counter()
    most = max(_LEAST_DRAWS, _DRAWS_PER_ITEM * n_items)
    for _ in range(most):
        if len(rows) == n_items:
            break
        try:
            row = reader.read(draw())
        except Rejected as reason:
            reasons[str(reason)] += 1
            continue
        if tuple(row.clean) in seen:
            reasons["the same prompt came before"] += 1
            continue
        seen.add(tuple(row.clean))
        rows.append(row)
    reasons.update(dropped)  # now that the draws have looked at all words
    if len(rows) < n_items:
        commonest, count = reasons.most_common(1)[0]
        raise BadInput(
            f"{reader.who}: {n_items} distinct prompts are asked for and {most} draws gave {len(rows)} "
            f"({count} rejected: {commonest}): lower n_items or use a promptset that fits this model"
        )
    return _assembled(reader.vocabulary, rows, facts, reasons)


def _assembled(
    vocabulary: Vocabulary, rows: Sequence[Row], facts: Mapping[str, Any], reasons: Counter[str]
) -> Promptset:
    names = [name for name in rows[0].labels if all(name in row.labels for row in rows)]
    labels = {name: torch.tensor([row.labels[name] for row in rows], dtype=torch.int64) for name in names}
    clean = padded([row.clean for row in rows], labels)
    corrupt = padded([row.corrupt for row in rows], labels) if all(row.corrupt for row in rows) else None
    groups = {name: number for number, name in enumerate(dict.fromkeys(row.cluster for row in rows))}
    differing = [name for name in rows[0].conditions if all(name in row.conditions for row in rows)]
    known: dict[str, Any] = {"bos_mode": vocabulary.bos_mode, "offset": int(vocabulary.first_id is not None)}
    is_asked = bool(rows[0].correct)
    if is_asked:
        known["chance"] = {**_chances(rows, len(vocabulary.ordinary_ids)), **facts.get("chance", {})}
    return Promptset(
        clean=clean,
        corrupt=corrupt,
        correct_ids=answer_ids([row.correct for row in rows]) if is_asked else None,
        wrong_ids=answer_ids([row.wrong for row in rows]) if is_asked else None,
        clusters=torch.tensor([groups[row.cluster] for row in rows]) if len(groups) > 1 else None,
        facts={**facts, **known},
        texts=tuple(row.text for row in rows),
        dropped={reason: count for reason, count in reasons.items() if count},
        conditions={
            name: torch.tensor([row.conditions[name] for row in rows], dtype=torch.float64) for name in differing
        },
    )


def _chances(rows: Sequence[Row], n_tokens: int) -> dict[str, float]:
    """Expected accuracy, by probe, of a model that knows nothing."""
    sizes = [(len(row.correct), len(row.wrong)) for row in rows]
    return {
        "answer_accuracy": sum(right / (right + wrong) for right, wrong in sizes) / len(rows),
        "set_accuracy": sum(0.5 * (right >= wrong) + 0.5 * (right > wrong) for right, wrong in sizes) / len(rows),
        "top1_accuracy": sum(right for right, _ in sizes) / len(rows) / n_tokens,
    }


def _cover(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """First and last token that overlap the characters [start, end); the last must end where they end."""
    covering = [index for index, (low, high) in enumerate(offsets) if low < end and high > start]
    if not covering or offsets[covering[-1]][1] != end:
        raise Rejected("a named word ends inside a token")
    return covering[0], covering[-1]
