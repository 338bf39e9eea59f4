"""The baseline that knows which word follows which in the micro-world, and nothing of what stands before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mneme.arguments import number_between, whole_number
from mneme.bigram import bigram_model, count_pairs
from mneme.microworld.documents import Library, world_words
from mneme.microworld.lessons import WHOLE
from mneme.microworld.tokenizer import word_tokenizer
from mneme.recipe import Workshop, recipe

DOCUMENTS_PER_REPORT = 500


@recipe()
def bigram_world(
    workshop: Workshop, *, seed: int, n_tokens: int = 500_000, smoothing: float = 1.0, context: int = 512
) -> dict[str, Any]:
    """Count which token follows which in documents of the micro-world, and save the model of it with its tokenizer.

    The documents are those of the recipe `micro_world`: the same mixture, the same tokenizer, each behind the first
    token. smoothing: weight, in tokens, of how frequent a token is at all (mneme/bigram.py).
    Returns: documents, tokens, seconds. Raises: BadInput for a number that makes no sense.
    """
    whole_number("bigram_world.n_tokens", n_tokens, 1)
    whole_number("bigram_world.context", context, 128)
    number_between("bigram_world.smoothing", smoothing, 1e-6, 1e6)
    started = time.perf_counter()
    tokenizer = word_tokenizer(world_words(), context)
    shelf = _Shelf(Library(tokenizer.get_vocab(), context - 1), int(tokenizer.bos_token_id), n_tokens, workshop)
    counts = count_pairs(shelf.rows(np.random.default_rng(seed)), len(tokenizer))
    bigram_model(counts, smoothing, context, shelf.first_id).save_pretrained(workshop.folder)
    tokenizer.save_pretrained(workshop.folder)
    return {
        "documents": shelf.n_documents,
        "tokens": shelf.n_read,
        "seconds": round(time.perf_counter() - started, 3),
    }


@dataclass
class _Shelf:
    """Documents until enough tokens are read."""

    library: Library
    first_id: int
    n_tokens: int
    workshop: Workshop
    n_read: int = 0
    n_documents: int = 0

    def rows(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """Token rows, each behind the first token."""
        while self.n_read < self.n_tokens:
            document = self.library.draw(rng, WHOLE)
            self.n_read += len(document.ids)
            self.n_documents += 1
            if self.n_documents % DOCUMENTS_PER_REPORT == 0:
                self.workshop.progress(min(self.n_read, self.n_tokens), self.n_tokens, "tokens counted")
            yield [self.first_id, *document.ids]
