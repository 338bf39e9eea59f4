"""What tests of prompts told in scenes ask of them."""

import re
from collections import Counter

import torch

from mneme.promptset import Promptset, Vocabulary
from mneme.stats import wilson


def words_at(prompts: Promptset, vocabulary: Vocabulary, label: str) -> list[str]:
    """The token at a label of each clean prompt, as text."""
    ids = prompts.clean.ids[torch.arange(len(prompts)), prompts.clean.labels[label]]
    return [vocabulary.tokenizer.decode(int(each)).strip() for each in ids]


def answers(prompts: Promptset, vocabulary: Vocabulary) -> list[str]:
    """The one correct answer of each prompt, as text."""
    return [vocabulary.tokenizer.decode(int(each)).strip() for each in prompts.correct_ids[:, 0]]


def text_of(vocabulary: Vocabulary, row: torch.Tensor, length: int) -> str:
    """A row of ids as text, without its first token and without spaces before marks."""
    return re.sub(r" ([.,:])", r"\1", vocabulary.tokenizer.decode(row[1:length]).strip())


def changed_places(prompts: Promptset, item: int) -> list[int]:
    """Where the corrupt prompt differs from the clean one."""
    return torch.nonzero(prompts.clean.ids[item] != prompts.corrupt.ids[item])[:, 0].tolist()


def copies_right(prompts: Promptset) -> dict[str, tuple[float, float]]:
    """Wilson interval of the accuracy of copying the first, last or most frequent candidate; a tie is no hit."""
    right: Counter[str] = Counter()
    for item in range(len(prompts)):
        correct = {int(each) for each in prompts.correct_ids[item] if each >= 0}
        candidates = correct | {int(each) for each in prompts.wrong_ids[item] if each >= 0}
        said = [each for each in prompts.clean.ids[item, : prompts.clean.lengths[item]].tolist() if each in candidates]
        counts = Counter(said).most_common()
        right["first"] += said[0] in correct
        right["last"] += said[-1] in correct
        right["most_frequent"] += counts[0][0] in correct and (len(counts) == 1 or counts[0][1] > counts[1][1])
    return {name: wilson(right[name], len(prompts)) for name in ("first", "last", "most_frequent")}
