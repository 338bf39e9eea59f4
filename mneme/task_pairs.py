"""What the tasks of the battery share: their words, and pairs that may be used for a comparison of circuits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mneme.arguments import one_of
from mneme.encoding import tokenizer_of
from mneme.errors import BadInput
from mneme.lexicon import LEXICON
from mneme.promptset import Promptset, Vocabulary
from mneme.scene_prompts import Rejected, SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told
from mneme.task_lexicon import TASK_LEXICON
from mneme.user_rows import Row
from mneme.words import SPLITS, Words

MOST_OF_ONE_ANSWER = 0.6
_LEAST_TO_BALANCE = 10  # among fewer prompts the answers of two classes are uneven by chance


@dataclass
class TaskWords(Words):
    """Words of the battery's own lexicon, and of the common one for the kinds that it does not have.

    An entry of several forms, `hammer/hammers`, is usable where every form is a single token.
    """

    def known(self, kind: str) -> tuple[str, ...]:
        """All words of a kind that are single tokens, of every split."""
        if kind not in self._known:
            offered = TASK_LEXICON[kind] if kind in TASK_LEXICON else LEXICON[kind]
            self._known[kind] = tuple(word for word in offered if self._is_usable(word, kind))
        return self._known[kind]

    def _is_usable(self, word: str, kind: str) -> bool:
        return all(super(TaskWords, self)._is_usable(form, kind) for form in word.split("/"))


def task_words(vocabulary: Vocabulary, place: str, split: str) -> TaskWords:
    """The battery's words of a split that are single tokens of a vocabulary."""
    tokenizer_of(vocabulary, place)
    return TaskWords(one_of(f"{place}.split", split, SPLITS), vocabulary)


@dataclass(frozen=True)
class PairReader(SceneReader):
    """Turns pairs into tokens, and rejects those whose comparison says nothing.

    is_hidden: whether a correct answer must not stand in the corrupt prompt.
    """

    is_hidden: bool = True

    def read(self, scene: Scene) -> Row:
        """The pair in tokens; raises Rejected with the reason."""
        row = super().read(scene)
        start = int(self.vocabulary.first_id is not None)
        if self.vocabulary.special_ids & {*row.clean[start:], *row.corrupt[start:]}:
            raise Rejected("a word of the prompt is not in the vocabulary")
        if self.is_hidden and set(row.correct) & set(row.corrupt):
            raise Rejected("a correct answer stands in the corrupt prompt")
        return row


def pair(  # noqa: PLR0913  the parts of a pair
    clean: Told,
    corrupt: Told,
    correct: tuple[str, ...],
    wrong: tuple[str, ...],
    *,
    cluster: str,
    glue: str = " ",
    conditions: Mapping[str, float] | None = None,
) -> Scene:
    """A clean prompt with its answers and its corrupt counterpart; the first correct answer is the one that is said."""
    question = Question(clean, correct[0], wrong, correct, glue=glue)
    return Scene(Told(""), (question,), corrupt, cluster=cluster, conditions=conditions or {})


def promptset_of_pairs(
    reader: SceneReader, draw: Callable[[], Scene], n_items: int, facts: Mapping[str, Any], words: Words
) -> Promptset:
    """`n_items` distinct pairs; see `promptset_of_scenes`.

    Raises: BadInput where one set of right answers belongs to more than 60 % of the prompts: then a model that always
    says the same does well (METHODS 11).
    """
    prompts = promptset_of_scenes(reader, draw, n_items, facts, words.rejected)
    assert prompts.correct_ids is not None  # noqa: S101  every pair has answers
    counts = Counter(map(tuple, prompts.correct_ids.tolist()))
    most = max(counts.values()) / len(prompts)
    if len(prompts) >= _LEAST_TO_BALANCE and most > MOST_OF_ONE_ANSWER:
        raise BadInput(
            f"{reader.who}: one answer is right in {most:.0%} of the prompts, and {MOST_OF_ONE_ANSWER:.0%} is the most "
            "that may be: use parameters or a tokenizer that leave more answers"
        )
    return prompts
