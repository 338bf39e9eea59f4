"""Scenes of the micro-world told whole, one after the other: running text of one length, of one or of two domains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mneme.arguments import one_of, whole_number
from mneme.encoding import begun, encode, padded, tokenizer_of
from mneme.errors import BadInput
from mneme.function_tokens import LEAST_TOKENS
from mneme.microworld.documents import BEHAVIORS, INDUCTION, SIZES, scene_of
from mneme.promptset import Promptset, Tokenizer, Vocabulary, promptset
from mneme.words import Words

TOLD = tuple(behavior for behavior in BEHAVIORS if behavior != INDUCTION)


@promptset(needs_tokenizer=True, source="scenes written for this project; METHODS 1c, 18, 19g")
def told_scenes(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 100,
    n_tokens: int = 64,
    scenes: Sequence[str] = TOLD,
    other_scenes: Sequence[str] = (),
    corpus_tokens: int = 0,
) -> Promptset:
    """Prompts of exactly `n_tokens` tokens: training scenes with all their answers, until the prompt is full.

    scenes: the behaviors that the scenes are of, each drawn equally often; the words are those of the micro-world, with
    any tokenizer. other_scenes: the behaviors of a second domain, of which the second half of the prompts is; both
    have one length and begin alike. corpus_tokens: how many tokens of further such text are counted, 0 = none.
    Conditions: `domain`, 0 or 1, where there are two. Facts: bos_mode, offset, with a count also `frequencies`,
    pairs of token id and count in falling order, the first token in front not counted.
    Raises: NotApplicable without a tokenizer; BadInput for an unknown behavior, more tokens than the context, a corpus
    under 100,000 tokens.
    """
    tokenizer = tokenizer_of(vocabulary, "told_scenes")
    n_items = whole_number("told_scenes.n_items", n_items, 2 if other_scenes else 1)
    n_tokens = whole_number("told_scenes.n_tokens", n_tokens, 2, vocabulary.context)
    domains = [_checked("scenes", scenes), *([_checked("other_scenes", other_scenes)] if other_scenes else [])]
    corpus_tokens = _checked_corpus(corpus_tokens)
    offset = int(vocabulary.first_id is not None)
    rng = np.random.default_rng(seed)
    domain_of = [item * len(domains) // n_items for item in range(n_items)]
    rows = [_text(tokenizer, rng, domains[domain], n_tokens - offset) for domain in domain_of]
    facts: dict[str, object] = {"bos_mode": vocabulary.bos_mode, "offset": offset}
    if corpus_tokens:
        facts["frequencies"] = _frequencies(tokenizer, domains, corpus_tokens, seed)
    return Promptset(
        padded([begun(vocabulary, row) for row in rows]),
        facts=facts,
        texts=tuple(tokenizer.decode(row) for row in rows),
        conditions={"domain": torch.tensor(domain_of, dtype=torch.float64)} if other_scenes else {},
    )


def _checked(name: str, scenes: object) -> tuple[str, ...]:
    if not isinstance(scenes, list | tuple) or not scenes:
        raise BadInput(f"told_scenes.{name} is {scenes!r}: give a list of behaviors, such as [ioi, needle]")
    return tuple(one_of(f"told_scenes.{name}", each, TOLD) for each in scenes)


def _checked_corpus(corpus_tokens: int) -> int:
    corpus_tokens = whole_number("told_scenes.corpus_tokens", corpus_tokens, 0)
    if 0 < corpus_tokens < LEAST_TOKENS:
        raise BadInput(f"told_scenes.corpus_tokens is {corpus_tokens}: give {LEAST_TOKENS} at least, or 0 for no count")
    return corpus_tokens


def _documents(tokenizer: Tokenizer, rng: np.random.Generator, scenes: Sequence[str]) -> Iterator[list[int]]:
    """Token ids of one scene after the other."""
    words = Words("train", sizes=SIZES)
    while True:
        behavior = scenes[int(rng.integers(len(scenes)))]
        yield encode(tokenizer, " " + scene_of(behavior)(rng, words).document().text)


def _text(tokenizer: Tokenizer, rng: np.random.Generator, scenes: Sequence[str], size: int) -> list[int]:
    """`size` token ids of scenes."""
    ids: list[int] = []
    for document in _documents(tokenizer, rng, scenes):
        ids += document
        if len(ids) >= size:
            break
    return ids[:size]


def _frequencies(
    tokenizer: Tokenizer, domains: Sequence[Sequence[str]], corpus_tokens: int, seed: int
) -> list[list[int]]:
    """How often each token stands in a corpus of all domains in equal parts: [id, count] in falling order."""
    counts: Counter[int] = Counter()
    for number, scenes in enumerate(domains):
        rng = np.random.default_rng((seed, number))
        wanted = corpus_tokens * (number + 1) // len(domains)
        for document in _documents(tokenizer, rng, scenes):
            counts.update(document[: wanted - counts.total()])
            if counts.total() >= wanted:
                break
    return [[token, count] for token, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
