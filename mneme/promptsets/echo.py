"""Echo: lists that are said again, and the last word of the last one is open."""

from __future__ import annotations

import numpy as np

from mneme.arguments import whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.stories import Scene, Told, joined, told
from mneme.task_pairs import PairReader, TaskWords, pair, promptset_of_pairs, task_words


@promptset(needs_tokenizer=True, source="Hanna et al. 2025; METHODS 11")
def echo(
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_words: int = 3,
    n_shots: int = 2,
) -> Promptset:
    """'Mary read the list: river, stone, cloud. Again: river, stone, cloud.' twice, then a third list -> its last word.

    n_words: of a list; n_shots: lists that are said and said again before the one that is asked. No word stands in two
    lists. The right answer is last in its list, the wrong ones are the list's other words and the one that the corrupt
    prompt has in its place, so that counting words says nothing.
    Corrupt: another word is last when the list is first read. Labels: source (the answer there), previous (the word
    before it), question_previous (the last word of the prompt), end. Facts: n_words, n_shots, split.
    Departs from METHODS 11, which names the task only: words of a list are separated by commas and drawn at random.
    Raises: BadInput where the tokenizer has too few nouns as single tokens or n_items exceeds what can be told.
    """
    place = "echo"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_words = whole_number(f"{place}.n_words", n_words, 2)
    n_shots = whole_number(f"{place}.n_shots", n_shots, 0)
    words = task_words(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"n_words": n_words, "n_shots": n_shots, "split": split}
    reader = PairReader(vocabulary, place)
    return promptset_of_pairs(reader, lambda: told_pair(rng, words, n_words, n_shots), n_items, facts, words)


def told_pair(rng: np.random.Generator, words: TaskWords, n_words: int = 3, n_shots: int = 2) -> Scene:
    """Solved lists and an open one, whose last word another takes in the corrupt prompt."""
    readers = words.draw(rng, "names", n_shots + 1)
    nouns = words.draw(rng, "nouns", (n_shots + 1) * n_words + 1)
    lists = [nouns[at : at + n_words] for at in range(0, len(nouns) - 1, n_words)]
    shots = [
        Told(f"{reader} read the list: {', '.join(said)}. Again: {', '.join(said)}.")
        for reader, said in zip(readers, lists, strict=False)
    ][:n_shots]
    asked, fresh = lists[-1], nouns[-1]

    def tell(last: str) -> Told:
        before = ", ".join([*asked[:-2], "{previous}"])
        again = ", ".join([*asked[:-2], "{question_previous}"])
        text = f"{readers[-1]} read the list: {before}, {{source}}. Again: {again},"
        return joined([*shots, told(text, previous=asked[-2], source=last, question_previous=asked[-2])])

    return pair(tell(asked[-1]), tell(fresh), (asked[-1],), (*asked[:-1], fresh), cluster=asked[-1])
