"""Needles over a grid of lengths and depths, each in a haystack of its own that all its prompts begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.bindings import bound
from mneme.encoding import encode, tokenizer_of
from mneme.errors import BadInput
from mneme.filler import filler, said_words
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.promptsets.needle import CORRUPTIONS, ENDINGS, OPENING, SAYINGS
from mneme.scene_prompts import Rejected, SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

PLACE = "needle_grid"
SHARE_OF_CONTEXT = 0.8  # METHODS 2a: lengths to 0.8 x context for small models
LONGEST = 5000  # tokens, where nothing else is asked: METHODS 2a, enough for the strongest heads
SHORTEST_SHARE = 0.4  # of the longest: short enough to differ, long enough for ten places between sentences
_MOST_NEEDLES, _MOST_WORDS, _MOST_DRAWS = 8, 12, 20
SAME = "the same prompt as in another cell of the grid"

Count = Callable[[str], int]


@promptset(needs_tokenizer=True, source="Wu et al. 2024; METHODS 2a")
def needle_grid(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_lengths: int = 20,
    n_depths: int = 10,
    n_needles_drawn: int = 3,
    longest: int | None = None,
    shortest: int | None = None,
    n_needles: int = 3,
    n_words: int = 1,
    split: str = "evaluation",
    corrupt: str = "value",
) -> Promptset:
    """The prompts of `needle` for every length x depth x drawn needle: '... The secret code of Mary is alpha. ...'.

    n_lengths: prompt lengths in tokens, equally spaced from `shortest` to `longest`; prompts fall short of theirs by
    less than a sentence. longest: None = 0.8 x context, 5000 at most; shortest: None = two fifths of that.
    n_depths: equally spaced from 0 (the needle opens the haystack) to 1 (it stands at its end).
    n_needles_drawn: asked needles, each with a haystack of its own. The haystack is cut at the last sentence that fits
    the length, and the needle stands where depth x its tokens fall, moved back to the end of a sentence; so the prompts
    of one haystack are alike up to their needle, whatever their length and depth.
    n_needles: needles in a prompt. The others are alike for all prompts of a haystack: some stand in the part that the
    shortest prompt keeps, some right before the question; how many is another number for each haystack in turn, so that
    the asked one is now the last, now the first.
    n_words: words of a value; the correct answer is the first, the span `value_first` .. `value` holds all.
    corrupt, values, wrong answers, labels, chance: as in `needle`. No value can be known without its prompt: keys and
    values are drawn, and held-out splits hold pairs that no training text has.
    Conditions: length (as asked), depth. Clusters: prompts of one drawn needle. Cells of the grid that give the same
    prompt, which short haystacks with few sentences have, are one prompt, counted in `dropped`.
    Departs from METHODS 2a: the haystack is cut at a sentence, not at a token; needles and filler are made of a word
    list; several needles; the prompt's last sentence is begun, not asked with 'Question:'.
    Raises: BadInput for a length that exceeds the context or leaves no room for the needles, and where the tokenizer
    has too few single-token words.
    """
    n_needles = whole_number(f"{PLACE}.n_needles", n_needles, 2, _MOST_NEEDLES)
    n_words = whole_number(f"{PLACE}.n_words", n_words, 1, _MOST_WORDS)
    corrupt = one_of(f"{PLACE}.corrupt", corrupt, CORRUPTIONS)
    n_depths = whole_number(f"{PLACE}.n_depths", n_depths, 1)
    lengths = _lengths(vocabulary, n_lengths, shortest, longest)
    words = words_for(vocabulary, PLACE, split)
    tokenizer = tokenizer_of(vocabulary, PLACE)
    rng = np.random.default_rng(seed)

    def count(text: str) -> int:
        return len(encode(tokenizer, f" {text}"))

    before = (vocabulary.first_id is not None) + len(encode(tokenizer, OPENING))
    reader = SceneReader(vocabulary, PLACE, wide=("value",), followed=("value",))
    scenes: dict[str, Scene] = {}
    dropped: Counter[str] = Counter()
    for number in range(whole_number(f"{PLACE}.n_needles_drawn", n_needles_drawn, 1)):

        def draw(number: int = number) -> _Haystack:
            drawn = _drawn(rng, words, n_needles, n_words, number)
            return _haystack(rng, words, drawn, [length - before for length in lengths], count)

        haystack = _readable(reader, draw, lengths[0], dropped)
        cells = product(zip(haystack.rooms, lengths, strict=True), np.linspace(0, 1, n_depths))
        for (room, length), depth in cells:
            scene = haystack.scene(room, length, float(depth), corrupt)
            dropped[SAME] += scene.prompt.text in scenes
            scenes.setdefault(scene.prompt.text, scene)
    facts = {
        "lengths": lengths,
        "n_depths": n_depths,
        "n_needles": n_needles,
        "n_words": n_words,
        "corrupt": corrupt,
        "split": split,
        "chance": {"answer_accuracy": 1 / n_needles},
    }
    return promptset_of_scenes(reader, iter(scenes.values()).__next__, len(scenes), facts, words.rejected + dropped)


def _lengths(vocabulary: Vocabulary, n_lengths: int, shortest: int | None, longest: int | None) -> list[int]:
    n_lengths = whole_number(f"{PLACE}.n_lengths", n_lengths, 1)
    if longest is None:
        longest = min(int(SHARE_OF_CONTEXT * vocabulary.context), LONGEST)
    longest = whole_number(f"{PLACE}.longest", longest, 1, vocabulary.context)
    if shortest is None:
        shortest = max(1, int(SHORTEST_SHARE * longest))
    shortest = whole_number(f"{PLACE}.shortest", shortest, 1, longest)
    return [int(each) for each in np.linspace(shortest, longest, n_lengths).round()]


@dataclass(frozen=True)
class _Needles:
    """Keys with their values, the asked one first; a key and a value that stand nowhere; how many others stand last."""

    saying: str
    keys: list[str]
    values: list[str]
    endings: list[str]
    fresh_key: str
    fresh_value: str
    n_late: int

    def tell(self, at: int, value: str | None = None) -> Told:
        """One needle, with another value if that is given."""
        text = f"The {self.saying} of {{key}} is {{value}}{self.endings[at]}"
        return told(text, key=self.keys[at], value=value or self.values[at])

    def ask(self, key: str | None = None) -> Told:
        """The question for the first needle, or for another key."""
        return told(f"So the {self.saying} of {{question_key}} is", question_key=key or self.keys[0])

    @property
    def early(self) -> list[str]:
        """The other needles that stand in the haystack."""
        return [self.tell(at).text for at in range(1, len(self.keys) - self.n_late)]

    @property
    def late(self) -> str:
        """The other needles that stand right before the question."""
        return " ".join(self.tell(at).text for at in range(len(self.keys) - self.n_late, len(self.keys)))


@dataclass(frozen=True)
class _Haystack:
    """One text, the needles, and how many of its tokens a prompt of each length has room for."""

    words: Words
    needles: _Needles
    sentences: list[str]
    ends: list[int]
    rooms: list[int]

    def scene(self, room: int, length: int, depth: float, corrupt: str) -> Scene:
        """The haystack cut to its room, with the asked needle at the depth."""
        needles = self.needles
        n_kept = int(np.searchsorted(self.ends, room, side="right")) - 1
        at = int(np.searchsorted(self.ends[: n_kept + 1], depth * self.ends[n_kept] + 1e-6, side="right")) - 1
        before, after = " ".join(self.sentences[:at]), " ".join(self.sentences[at:n_kept])
        fresh = needles.fresh_value.split()[0]
        hay = said_words(self.sentences[:n_kept], self.words.of("codes"), self.words.of("nouns"))
        others = dict.fromkeys([*(each.split()[0] for each in needles.values[1:]), *hay, fresh])
        answer = needles.values[0].split()[0]

        def tell(value: str) -> Told:
            return joined([Told(OPENING), Told(before), needles.tell(0, value), Told(after), Told(needles.late)])

        value, key = (needles.fresh_value, None) if corrupt == "value" else (needles.values[0], needles.fresh_key)
        return Scene(
            context=tell(needles.values[0]),
            questions=(Question(needles.ask(), answer, tuple(each for each in others if each != answer)),),
            corrupt=joined([tell(value), needles.ask(key)]),
            binding=(needles.keys[0], answer),
            cluster=f"needle {needles.saying} {needles.keys[0]} {needles.values[0]}",
            conditions={"length": float(length), "depth": round(depth, 4)},
        )


def _haystack(rng: np.random.Generator, words: Words, needles: _Needles, lengths: list[int], count: Count) -> _Haystack:
    """A text for the longest prompt, the early needles in the part that the shortest one keeps."""
    around = count(needles.tell(0).text) + count(needles.ask().text) + (count(needles.late) if needles.late else 0)
    rooms = [length - around for length in lengths]
    early = sum(count(each) for each in needles.early)
    if rooms[0] < early:
        raise BadInput(
            f"{PLACE}.shortest leaves no room: the needles and the question alone are {lengths[0] - rooms[0] + early} "
            "tokens: raise shortest or lower n_needles"
        )
    said = [*needles.keys, *needles.values, needles.fresh_key, needles.fresh_value]
    hidden = {word for each in said for word in each.split()}
    sentences = filler(rng, words, rooms[-1] - early, hidden, count)
    n_kept = int(np.searchsorted(np.cumsum([count(each) for each in sentences]), rooms[0] - early, side="right"))
    for other in needles.early:
        sentences.insert(int(rng.integers(n_kept + 1)), other)
    ends = np.cumsum([0, *(count(each) for each in sentences)]).tolist()
    return _Haystack(words, needles, sentences, ends, rooms)


def _drawn(rng: np.random.Generator, words: Words, n_needles: int, n_words: int, number: int) -> _Needles:
    """Needles whose asked key and first word of a value are bound in this split."""
    keys, firsts = bound(rng, words, lambda: [words.draw(rng, "names", n_needles), _values(rng, words, n_needles)], 0)
    said = list(firsts)
    values = []
    for first in [*firsts, ""]:
        more = _values(rng, words, n_words - bool(first), said)
        said += more
        values.append(" ".join([first, *more]).strip())
    return _Needles(
        saying=SAYINGS[int(rng.integers(len(SAYINGS)))],
        keys=keys,
        values=values[:-1],
        endings=[ENDINGS[each] for each in rng.integers(len(ENDINGS), size=n_needles)],
        fresh_key=words.draw(rng, "names", 1, but=keys)[0],
        fresh_value=values[-1],
        n_late=number % n_needles,
    )


def _values(rng: np.random.Generator, words: Words, n: int, but: list[str] | None = None) -> list[str]:
    """Distinct codes and nouns, none of them in `but`."""
    found = list(but or [])
    n_said = len(found)
    for _ in range(n):
        found += words.draw(rng, ("codes", "nouns")[int(rng.integers(2))], 1, but=found)
    return found[n_said:]


def _readable(reader: SceneReader, draw: Callable[[], _Haystack], length: int, dropped: Counter[str]) -> _Haystack:
    """The first of several haystacks whose words the tokenizer keeps apart."""
    for _ in range(_MOST_DRAWS):
        haystack = draw()
        try:
            for corrupt in CORRUPTIONS:
                reader.read(haystack.scene(haystack.rooms[0], length, 0.0, corrupt))
        except Rejected as reason:
            dropped[str(reason)] += 1
            continue
        return haystack
    commonest, count = dropped.most_common(1)[0]
    raise BadInput(
        f"{PLACE}: no needle can be used ({count} rejected: {commonest}): use a promptset that fits this model"
    )
