"""Countries and capitals, asked either way."""

from __future__ import annotations

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.facts import remarks
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, Told, joined, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words

ASKED = ("capital", "country")
PHRASINGS = ("apposition", "sentence")
_TEMPLATES = {
    ("capital", "apposition"): "{subject}, whose capital,",
    ("country", "apposition"): "{subject}, the capital of",
    ("capital", "sentence"): "The capital of {subject} is",
    ("country", "sentence"): "{subject} is the capital of",
}
_FACTS = "capitals of countries"


@promptset(needs_tokenizer=True, source="Hanna et al. 2025; METHODS 11")
def country_capital(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    asked: str = "capital",
    phrasing: str = "apposition",
    n_remarks: int = 1,
) -> Promptset:
    """'Mary was near the bridge. France, whose capital,' -> Paris; asked the other way, 'Paris, the capital of'.

    asked: `capital` gives a country, `country` gives a city. phrasing: `apposition` as above; `sentence` asks 'The
    capital of France is' and 'Paris is the capital of', which has only words that the micro-world knows.
    n_remarks: sentences about other people in front; without one there are few distinct prompts.
    Corrupt: another country or city. Labels: subject, end. Clusters: the subject. Wrong answers: those of all others.
    Facts: asked, phrasing, n_remarks, split. What the model does not know stays in: its accuracy says how much.
    Raises: BadInput where the tokenizer has too few countries and cities as single tokens, or n_items is too large.
    """
    place = "country_capital"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_remarks = whole_number(f"{place}.n_remarks", n_remarks, 0)
    asked = one_of(f"{place}.asked", asked, ASKED)
    phrasing = one_of(f"{place}.phrasing", phrasing, PHRASINGS)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"asked": asked, "phrasing": phrasing, "n_remarks": n_remarks, "split": split}

    def draw() -> Scene:
        return told_pair(rng, words, asked, phrasing, n_remarks)

    return promptset_of_pairs(PairReader(vocabulary, place), draw, n_items, facts, words)


def told_pair(
    rng: np.random.Generator,
    words: TaskWords,
    asked: str = "capital",
    phrasing: str = "apposition",
    n_remarks: int = 1,
) -> Scene:
    """A question on one country or city, and the same on another."""
    gives = 0 if asked == "capital" else 1
    mine, other = (fact.split("/") for fact in words.draw(rng, _FACTS, 2))
    front = Told(remarks(rng, words, n_remarks))
    template = _TEMPLATES[asked, phrasing]
    clean, corrupt = (joined([front, told(template, subject=fact[gives])]) for fact in (mine, other))
    answers = (fact.split("/")[1 - gives] for fact in words.known(_FACTS))
    wrong = tuple(each for each in answers if each != mine[1 - gives])
    return pair(clean, corrupt, (mine[1 - gives],), wrong, cluster=mine[gives])
