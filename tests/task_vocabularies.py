"""Tokenizers that know the words of the task battery, as a tokenizer from the hub does: byte-level BPE."""

from __future__ import annotations

import importlib
from functools import cache

import numpy as np

from mneme.lexicon import LEXICON
from mneme.promptset import Vocabulary
from mneme.promptsets.arithmetic import OPERATORS
from mneme.scene_prompts import Rejected
from mneme.task_lexicon import TASK_LEXICON
from mneme.task_pairs import TaskWords
from tests.scene_vocabularies import trained_bpe

TASKS = ("gendered_pronoun", "hypernymy", "country_capital", "npi", "wug_plural", "echo", "arithmetic")
MADE_UP = "made-up nouns"  # which no tokenizer has met


@cache
def sentences(name: str, n: int = 300) -> tuple[str, ...]:
    """Clean and corrupt prompts of a task, with all of its words."""
    rng, words = np.random.default_rng(0), TaskWords("train")
    told = []
    for _ in range(n):
        try:
            scene = importlib.import_module(f"mneme.promptsets.{name}").told_pair(rng, words)
        except Rejected:
            continue
        told += [f"{scene.prompt.text}{scene.questions[0].glue}{scene.questions[0].answer}", scene.corrupt.text]
    return tuple(told)


@cache
def task_vocabulary(name: str, vocab_size: int = 3000, context: int = 256) -> Vocabulary:
    """A GPT-2-like tokenizer trained on the task's prompts and words; numbers up to 99 are one token."""
    return trained_bpe([*sentences(name), *_word_list()], r" ?\d\d?", vocab_size, context)


def _word_list() -> list[str]:
    """Every word of the lexicons but the made-up ones, and what operators are called, twice each."""
    kinds = {**LEXICON, **TASK_LEXICON}
    entries = [entry for kind, words in kinds.items() if kind != MADE_UP for entry in words]
    forms = [form for entry in entries for form in entry.split("/")]
    return [f" {word}" for word in dict.fromkeys([*forms, *OPERATORS, *OPERATORS.values()])] * 2
