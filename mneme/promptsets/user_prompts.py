"""The user's own prompts: single ones or clean/corrupt pairs, with answers and named positions if there are any."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch

from mneme.arguments import whole_number
from mneme.encoding import answer_ids, padded, tokenizer_of
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.registry import near_names
from mneme.user_rows import CONDITION, POSITION, Dropped, Reader, Row

COLUMNS = ("prompt", "clean", "corrupt", "correct", "wrong", "cluster")


@promptset(needs_tokenizer=True, source="the user's file; checks of METHODS 0")
def user_prompts(
    vocabulary: Vocabulary,
    *,
    seed: int,
    rows: list[dict[str, Any]],
    n_items: int | None = None,
    chat_template: bool = False,
) -> Promptset:
    """Prompts from rows of a file: `prompt`, or `clean` and `corrupt`; optionally `correct` and `wrong`.

    correct, wrong: the word that continues the prompt (or a list of words), one token each as it occurs there.
    position_<name>: names a position by a word of the clean prompt that occurs once (its last token), or by its index
    among the prompt's own tokens, the first token in front not counted; negative from the end.
    condition_<name>: a number by which prompts differ on purpose, such as a length or a depth.
    cluster: prompts that share a template. Columns that start with `_` are ignored.
    n_items: a random subset of that many usable rows. chat_template: wrap prompts as the user's turn of the model's
    own chat template. Rows that cannot be used are dropped and counted by reason; labels always hold `end`.
    Facts: bos_mode, offset (tokens in front of the prompt's own), chat_template, rows (how many were given).
    Raises: NotApplicable without tokenizer or chat template; BadInput for unknown columns, or when no row is left.
    """
    tokenizer = tokenizer_of(vocabulary, "user_prompts")
    columns = _columns(rows)
    reader = Reader(vocabulary, tokenizer, chat_template, columns)
    kept, dropped = _read(reader, rows)
    if n_items is not None:
        n_items = whole_number("user_prompts.n_items", n_items, 1, len(kept))
        chosen = np.sort(np.random.default_rng(seed).choice(len(kept), size=n_items, replace=False))
        kept = [kept[each] for each in chosen]
    facts: dict[str, Any] = {
        "bos_mode": vocabulary.bos_mode,
        "offset": 0 if vocabulary.first_id is None else 1,
        "chat_template": chat_template,
        "rows": len(rows),
    }
    if {"correct", "wrong"} <= columns and all(len(row.correct) == len(row.wrong) == 1 for row in kept):
        facts["chance"] = {"answer_accuracy": 0.5}
    return _assemble(kept, columns, facts, dict(dropped))


def _columns(rows: list[dict[str, Any]]) -> frozenset[str]:
    """Columns in use; refuses unknown ones and files that hold neither prompts nor pairs."""
    names = {name for row in rows for name in row if not name.startswith("_")}
    for name in sorted(names):
        shown = " ".join(name[:40].split())
        if name not in COLUMNS and not name.startswith((POSITION, CONDITION)):
            near = near_names(shown, list(COLUMNS))
            raise BadInput(f"user prompts have an unknown column '{shown}'{near}; '_{shown}' would be ignored")
        own = name.removeprefix(POSITION).removeprefix(CONDITION)
        if name not in COLUMNS and not re.fullmatch(r"[\w-]+", own):
            what = "position" if name.startswith(POSITION) else "condition"
            raise BadInput(f"user prompts have a column '{shown}': name the {what} by letters, digits, '_' and '-'")
        if name == f"{POSITION}end":
            raise BadInput("user prompts have a column 'position_end': every prompt has its own end, name it otherwise")
    if ("prompt" in names) == ("clean" in names):
        raise BadInput("user prompts need either a column 'prompt' or the columns 'clean' and 'corrupt'")
    if ("clean" in names) != ("corrupt" in names):
        raise BadInput("user prompts need both 'clean' and 'corrupt' for pairs: add the other column")
    if "wrong" in names and "correct" not in names:
        raise BadInput("user prompts have a column 'wrong' but none 'correct': add it")
    return frozenset(names)


def _read(reader: Reader, rows: list[dict[str, Any]]) -> tuple[list[Row], Counter[str]]:
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        try:
            kept.append(reader.read(row))
        except Dropped as reason:
            dropped[str(reason)] += 1
    if not kept:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in dropped.most_common(3))
        raise BadInput(f"none of the {len(rows)} rows of user prompts can be used ({reasons}): mend the file")
    return kept, dropped


def _assemble(kept: list[Row], columns: frozenset[str], facts: dict[str, Any], dropped: dict[str, int]) -> Promptset:
    names = ["end", *sorted(name.removeprefix(POSITION) for name in columns if name.startswith(POSITION))]
    labels = {name: torch.tensor([row.labels[name] for row in kept], dtype=torch.int64) for name in names}
    differing = sorted(name.removeprefix(CONDITION) for name in columns if name.startswith(CONDITION))
    clusters = None
    if "cluster" in columns:
        known = {name: index for index, name in enumerate(dict.fromkeys(row.cluster for row in kept))}
        clusters = torch.tensor([known[row.cluster] for row in kept], dtype=torch.int64)
    return Promptset(
        clean=padded([row.clean for row in kept], labels),
        corrupt=padded([row.corrupt for row in kept]) if "corrupt" in columns else None,
        correct_ids=answer_ids([row.correct for row in kept]) if "correct" in columns else None,
        wrong_ids=answer_ids([row.wrong for row in kept]) if "wrong" in columns else None,
        clusters=clusters,
        facts=facts,
        texts=tuple(row.text for row in kept),
        dropped=dropped,
        conditions={
            name: torch.tensor([row.conditions[name] for row in kept], dtype=torch.float64) for name in differing
        },
    )
