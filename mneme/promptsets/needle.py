"""Needles in filler: two or more sentences that give a key its value, and the question for one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mneme.arguments import number_between, one_of, whole_number
from mneme.bindings import bound
from mneme.encoding import encode, tokenizer_of
from mneme.errors import BadInput
from mneme.filler import count_words, filler, said_words, training_length
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

OPENING = "Remember this."  # so that every sentence stands after a space, and counts as many tokens anywhere
SAYINGS = ("secret code", "magic word", "hidden sign")
# What follows a value varies, or a head may learn to look at the token after it.
ENDINGS = (".", " today.", " now.", ", they said.", " and no other.", " again.", ", as before.")
CORRUPTIONS = ("value", "key")
DEPTHS = tuple(step / 9 for step in range(10))
_MOST_NEEDLES = 8


@dataclass(frozen=True)
class Hay:
    """Around the needles: tokens of the prompt but for its opening, depth of the asked one, how tokens count."""

    n_tokens: int
    depth: float
    count: Callable[[str], int] = count_words


@dataclass(frozen=True)
class _Needles:
    """Keys with their values, the asked one first, and how they are said: all alike, but for their endings."""

    saying: str
    keys: list[str]
    values: list[str]
    endings: list[str]

    def tell(self, at: int, value: str | None = None) -> Told:
        """One needle, with another value if that is given."""
        text = f"The {self.saying} of {{key}} is {{value}}{self.endings[at]}"
        return told(text, key=self.keys[at], value=value or self.values[at])

    def ask(self, at: int, slot: str, key: str | None = None) -> Told:
        """The question for one needle, or for another key if that is given."""
        return told(f"So the {self.saying} of {{{slot}}} is", **{slot: key or self.keys[at]})


@promptset(needs_tokenizer=True, source="Wu et al. 2024; METHODS 2a, 2b")
def needle(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_tokens: int = 128,
    depth: float | None = None,
    n_needles: int = 3,
    corrupt: str = "value",
) -> Promptset:
    """'Remember this. ... The secret code of Mary is alpha today. ... So the secret code of Mary is' -> alpha.

    n_tokens: length of the prompt, its first token included; prompts fall short of it by less than a sentence.
    depth: place of the asked needle among the other sentences, 0 first .. 1 last, moved back to the end of a sentence;
    None draws one of ten equally spaced depths for each prompt. The other needles stand anywhere.
    corrupt: `value` puts another value into the asked needle, one that stands nowhere else, so that the correct answer
    is nowhere; `key` asks for a name without a needle, so that there is no answer.
    Values are codes and nouns, which occur in the filler too, but no value stands twice. Wrong answers: the values of
    the other needles, every code and noun of the filler, and the corrupt value.
    Labels: key, value, value_first, value_next (the token after it, which varies), question_key, end.
    Condition: depth. Facts: n_tokens, depth, n_needles, corrupt, split, chance (1 / n_needles: a guess among the
    needles, which is more than a guess among all answers). Clusters: prompts of one depth.
    Departs from METHODS 2a: values are one token, several needles, needles and filler are made of a word list.
    Raises: BadInput for a length that exceeds the context or leaves no room for the needles, and where the tokenizer
    has too few single-token words.
    """
    place = "needle"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_needles = whole_number(f"{place}.n_needles", n_needles, 2, _MOST_NEEDLES)
    n_tokens = whole_number(f"{place}.n_tokens", n_tokens, 1, vocabulary.context)
    corrupt = one_of(f"{place}.corrupt", corrupt, CORRUPTIONS)
    if depth is not None:
        depth = number_between(f"{place}.depth", depth, 0, 1.0001)
    words = words_for(vocabulary, place, split)
    tokenizer = tokenizer_of(vocabulary, place)
    rng = np.random.default_rng(seed)
    n_told = n_tokens - (vocabulary.first_id is not None) - len(encode(tokenizer, OPENING))

    def draw() -> Scene:
        at = DEPTHS[int(rng.integers(len(DEPTHS)))] if depth is None else depth
        hay = Hay(n_told, at, lambda text: len(encode(tokenizer, f" {text}")))
        return scene(rng, words, n_needles, hay, corrupt)

    facts = {
        "n_tokens": n_tokens,
        "depth": depth,
        "n_needles": n_needles,
        "corrupt": corrupt,
        "split": split,
        "chance": {"answer_accuracy": 1 / n_needles},
    }
    reader = SceneReader(vocabulary, place, wide=("value",), followed=("value",))
    return promptset_of_scenes(reader, draw, n_items, facts, words.rejected)


def scene(
    rng: np.random.Generator,
    words: Words,
    n_needles: int | None = None,
    hay: Hay | None = None,
    corrupt: str = "value",
) -> Scene:
    """One scene; the first question asks the needle at the depth, the others ask the rest in random order.

    Its binding is the asked key and value. Without arguments 2 to 4 needles, filler as `training_length` draws it and
    any depth.
    """
    needles = _drawn(rng, words, n_needles or int(rng.integers(2, 5)))
    key, value = needles.keys[0], needles.values[0]
    fresh_key, fresh_value = words.draw(rng, "names", 1, but=needles.keys)[0], _value(rng, words, needles.values)
    others = [needles.tell(each).text for each in range(1, len(needles.keys))]
    texts = (others, needles.tell(0).text, needles.ask(0, "question_key").text)
    if hay is None:
        needed = sum(count_words(each) for each in (*others, *texts[1:]))
        hay = Hay(needed + training_length(rng), float(rng.random()))
    hidden = {*needles.keys, *needles.values, fresh_key, fresh_value}
    before, after, hay_words = _laid_out(rng, words, hay, texts, hidden)
    candidates = (*needles.values, *hay_words, fresh_value)

    def tell(value: str) -> Told:
        return joined([Told(OPENING), Told(before), needles.tell(0, value), Told(after)])

    def question(at: int) -> Question:
        answer = needles.values[at]
        wrong = tuple(each for each in candidates if each != answer)
        return Question(needles.ask(at, f"question_key_{at}" if at else "question_key"), answer, wrong)

    corrupt_value, corrupt_key = (fresh_value, key) if corrupt == "value" else (value, fresh_key)
    return Scene(
        context=tell(value),
        questions=tuple(question(int(at)) for at in (0, *(1 + rng.permutation(len(others))))),
        corrupt=joined([tell(corrupt_value), needles.ask(0, "question_key", corrupt_key)]),
        binding=(key, value),
        cluster=f"depth {hay.depth:.2f}",
        conditions={"depth": round(hay.depth, 4)},
    )


def _laid_out(
    rng: np.random.Generator,
    words: Words,
    hay: Hay,
    texts: tuple[list[str], str, str],
    hidden: set[str],
) -> tuple[str, str, list[str]]:
    """What stands before and after the asked needle, and the codes and nouns of the filler."""
    others, asked, question = texts
    room = hay.n_tokens - sum(hay.count(each) for each in (*others, asked, question))
    if room < 0:
        raise BadInput(
            f"needle.n_tokens leaves no room: the needles and the question alone are {hay.n_tokens - room} tokens: "
            "raise n_tokens or lower n_needles"
        )
    sentences = filler(rng, words, room, hidden, hay.count)
    said = said_words(sentences, words.of("codes"), words.of("nouns"))
    for other in others:
        sentences.insert(int(rng.integers(len(sentences) + 1)), other)
    lengths = np.cumsum([0, *(hay.count(each) for each in sentences)])
    at = int(np.searchsorted(lengths, hay.depth * lengths[-1] + 1e-6, side="right")) - 1
    return " ".join(sentences[:at]), " ".join(sentences[at:]), said


def _drawn(rng: np.random.Generator, words: Words, n: int) -> _Needles:
    keys, values = bound(rng, words, lambda: [words.draw(rng, "names", n), _values(rng, words, n)], 0)
    endings = [ENDINGS[each] for each in rng.integers(len(ENDINGS), size=n)]
    return _Needles(SAYINGS[int(rng.integers(len(SAYINGS)))], keys, values, endings)


def _values(rng: np.random.Generator, words: Words, n: int) -> list[str]:
    found: list[str] = []
    for _ in range(n):
        found.append(_value(rng, words, found))
    return found


def _value(rng: np.random.Generator, words: Words, but: list[str]) -> str:
    return words.draw(rng, ("codes", "nouns")[int(rng.integers(2))], 1, but=but)[0]
