"""Docstrings: which argument is documented next, after the ones before it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mneme.arguments import whole_number
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

FUNCTIONS = ("load", "find", "make", "read", "sort", "send")
_INDENT = "\n    "


@promptset(needs_tokenizer=True, source="Heimersheim & Janiak 2023; METHODS 11")
def docstring(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_arguments: int = 6,
    n_documented: int = 2,
    n_prefix: int | None = None,
) -> Promptset:
    r"""'def load(self, size, name, index, count): ... :param size: ... :param name: ... :param' -> index.

    n_documented: arguments documented before the one asked for; they stand in the docstring in the order of the
    definition. n_prefix: arguments of the definition that come before them and are not documented; None draws it for
    each prompt, so that the answer's place in the definition does not give it away; 2 is the paper's, with 6 arguments.
    Corrupt: other names in the definition and, not the same ones, in the docstring (the paper's `random_random`), so
    that no name stands twice and the answer nowhere.
    Labels: answer_def, previous_def (the documented argument before it, in the definition), previous_doc (the same in
    the docstring), previous_def_next (the token after it), end.
    Facts: n_arguments, n_documented, n_prefix (null where drawn), split, chance (a guess among the arguments that are
    not documented yet, which is more than a guess among all). Wrong answers: every other argument.
    Departs from the paper: descriptions are two words that may stand in several prompts, function names are few.
    Raises: BadInput for an argument list too short to hold the answer, too few single-token words, or n_items beyond
    what can be told.
    """
    place = "docstring"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_documented = whole_number(f"{place}.n_documented", n_documented, 1)
    n_arguments = whole_number(f"{place}.n_arguments", n_arguments, 3)
    if n_prefix is not None:
        n_prefix = whole_number(f"{place}.n_prefix", n_prefix, 0)
    if n_documented + (n_prefix or 0) >= n_arguments:
        raise BadInput(
            f"{place}.n_arguments is {n_arguments}, which leaves no argument after {n_prefix or 0} undocumented and "
            f"{n_documented} documented ones: give a larger one"
        )
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {
        "n_arguments": n_arguments,
        "n_documented": n_documented,
        "n_prefix": n_prefix,
        "split": split,
        "chance": {"answer_accuracy": 1 / (n_arguments - n_documented)},
    }
    return promptset_of_scenes(
        SceneReader(vocabulary, place, followed=("previous_def",)),
        lambda: scene(rng, words, n_arguments, n_documented, n_prefix),
        n_items,
        facts,
        words.rejected,
    )


def scene(
    rng: np.random.Generator,
    words: Words,
    n_arguments: int | None = None,
    n_documented: int | None = None,
    n_prefix: int | None = None,
) -> Scene:
    """One scene; None draws the difficulty. Its binding is the answer with the argument before it.

    Later questions go on down the arguments as far as the split allows.
    """
    n_arguments = int(rng.integers(4, 8)) if n_arguments is None else n_arguments
    n_documented = int(rng.integers(1, 3)) if n_documented is None else n_documented
    n_prefix = int(rng.integers(n_arguments - n_documented)) if n_prefix is None else n_prefix
    asked = n_prefix + n_documented
    names = words.first_allowed(
        lambda: words.draw(rng, "arguments", n_arguments), lambda drawn: _must_be_allowed(words, drawn, asked)
    )
    function = FUNCTIONS[rng.integers(len(FUNCTIONS))]
    said = iter(words.draw(rng, "nouns", 2 + 2 * (n_arguments - n_prefix)))
    title = f"{next(said)} {next(said)}"
    notes = [f"{next(said)} {next(said)}" for _ in names[n_prefix:]]

    def tell(names: list[str], documented: list[str]) -> Told:
        before = [_header(function, names, asked), Told(f'{_INDENT}"""{function} the {title}\n')]
        lines = [_line(name, note, last=name == documented[-1]) for name, note in zip(documented, notes, strict=False)]
        return joined([*before, *lines, Told(_INDENT)], glues=[""] * (len(lines) + 3))

    context = tell(names, names[n_prefix:asked])
    fresh = words.draw(rng, "arguments", n_arguments + n_documented, but=names)
    return Scene(
        context=context,
        questions=_questions(words, names, asked, notes[n_documented:]),
        corrupt=joined([tell(fresh[:n_arguments], fresh[n_arguments:]), Told(":param")]),
        binding=tuple(names[asked - 1 : asked + 1]),
        cluster=f"{function}.{n_prefix}",
    )


def _must_be_allowed(words: Words, names: list[str], asked: int) -> list[tuple[str, str]]:
    """The neighbors that the split has to allow: all of them in training, where all are seen."""
    pairs = list(pairwise(names))
    return pairs if words.split == "train" else pairs[asked - 1 : asked]


def _header(function: str, names: list[str], asked: int) -> Told:
    """'def load(self, size, name):' with the answer and the argument before it named."""
    slots = {asked - 1: "previous_def", asked: "answer_def"}
    spoken = [f"{{{slots[index]}}}" if index in slots else name for index, name in enumerate(names)]
    named = {slot: names[index] for index, slot in slots.items()}
    return told(f"def {function}(self, {', '.join(spoken)}):", **named)


def _line(name: str, note: str, *, last: bool) -> Told:
    """A documented argument; the last one before the question is named."""
    slot = "{previous_doc}" if last else name
    return told(f"{_INDENT}:param {slot}: {note}", **({"previous_doc": name} if last else {}))


def _questions(words: Words, names: list[str], asked: int, notes: list[str]) -> tuple[Question, ...]:
    """The argument asked for and those after it, each with its description behind the answer."""
    questions: list[Question] = []
    for index, note in zip(range(asked, len(names)), notes, strict=True):
        if not words.allows(names[index - 1 : index + 1]):
            break
        wrong = tuple(name for name in names if name != names[index])
        questions.append(Question(Told(":param"), names[index], wrong, after=f": {note}{_INDENT}"))
    return tuple(questions)
