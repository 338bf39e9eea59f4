"""Plain English prose, cut into prompts of one length."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch

from mneme.arguments import whole_number
from mneme.encoding import begun, encode, padded, tokenizer_of
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset


@promptset(needs_tokenizer=True, source="texts written for this project; METHODS 1c")
def natural_text(
    vocabulary: Vocabulary, *, seed: int, n_items: int = 100, n_tokens: int = 64, bos: bool = True
) -> Promptset:
    """Prompts of exactly `n_tokens` tokens from the prose in `texts/`, no two overlapping, drawn at random.

    bos: whether the vocabulary's first token stands in front (it counts among the n_tokens); False is the control.
    Clusters: the text that a prompt comes from. Facts: bos_mode, offset, available (prompts there are to draw from).
    Raises: NotApplicable without a tokenizer; BadInput for more tokens than the context or more items than available.
    """
    tokenizer = tokenizer_of(vocabulary, "natural_text")
    n_items = whole_number("natural_text.n_items", n_items, 1)
    n_tokens = whole_number("natural_text.n_tokens", n_tokens, 2, vocabulary.context)
    offset = 1 if bos and vocabulary.first_id is not None else 0
    size = n_tokens - offset
    chunks: list[tuple[int, list[int]]] = []
    for text, prose in enumerate(_texts()):
        ids = encode(tokenizer, prose)
        chunks += [(text, ids[start : start + size]) for start in range(0, len(ids) - size + 1, size)]
    if n_items > len(chunks):
        raise BadInput(
            f"natural_text has {len(chunks)} prompts of {n_tokens} tokens and {n_items} are asked for: "
            "lower n_items or n_tokens"
        )
    chosen = [chunks[each] for each in np.random.default_rng(seed).choice(len(chunks), size=n_items, replace=False)]
    rows = [begun(vocabulary, ids) if offset else ids for _, ids in chosen]
    return Promptset(
        padded(rows),
        clusters=torch.tensor([text for text, _ in chosen], dtype=torch.int64),
        facts={"bos_mode": vocabulary.bos_mode if offset else "none", "offset": offset, "available": len(chunks)},
        texts=tuple(tokenizer.decode(ids) for _, ids in chosen),
    )


def _texts() -> list[str]:
    folder = resources.files("mneme.promptsets").joinpath("texts")
    paths = sorted((each for each in folder.iterdir() if each.name.endswith(".txt")), key=lambda each: each.name)
    return [path.read_text(encoding="utf-8").strip() for path in paths]
