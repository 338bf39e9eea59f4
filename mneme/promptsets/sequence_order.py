"""Sequence order recall: which of two events of a story came first, or last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

VERBS = ("saw", "drew", "painted", "watched", "liked")
ASKED = ("mixed", "first", "last")
CORRUPTIONS = ("swap", "asked")
_MOST_EVENTS = 12
_MOST_MORE = 3  # further questions of a scene


@promptset(needs_tokenizer=True, source="Pink et al. 2024; METHODS 14a")
def sequence_order(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_events: int = 5,
    asked: str = "mixed",
    corrupt: str = "swap",
) -> Promptset:
    """'Mary saw the drum. Then Mary drew the lake. Which came first, the lake or the drum? The' -> drum.

    Each story is asked twice in a row, with its two events in both orders of presentation; the two prompts are one
    cluster. asked: `first`, `last` or, `mixed`, either as often; with `first` alone, the event that stands first in the
    prompt is always right, with `mixed` it is right half of the time.
    corrupt: `swap` lets the two events trade places in the story; `asked` asks for last in place of first, or the other
    way round. Both turn the answer round.
    Labels: earlier, later (the two events in the story), asked, option_0, option_1, end.
    Facts: n_events, asked, corrupt, split. Wrong answer: the other event.
    Departs from the paper: events are nouns of a made-up story of a few sentences, not segments of 20 or 50 words from
    a book, and the answer is the event's word, not the letter of an option.
    Raises: BadInput where the tokenizer has too few single-token words or n_items exceeds what can be told.
    """
    place = "sequence_order"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_events = whole_number(f"{place}.n_events", n_events, 2, _MOST_EVENTS)
    asked = one_of(f"{place}.asked", asked, ASKED)
    corrupt = one_of(f"{place}.corrupt", corrupt, CORRUPTIONS)
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"n_events": n_events, "asked": asked, "corrupt": corrupt, "split": split}
    return promptset_of_scenes(
        SceneReader(vocabulary, place),
        _in_both_orders(lambda: _story(rng, words, n_events, asked), corrupt),
        n_items,
        facts,
        words.rejected,
    )


@dataclass(frozen=True)
class _Story:
    """Who, what happened in order, and what is asked: two places of `events`, the one offered first in front."""

    name: str
    verbs: tuple[str, ...]
    events: tuple[str, ...]
    offered: tuple[int, int]
    asked: str

    @property
    def options(self) -> tuple[str, str]:
        """The two events in the order in which they are offered."""
        return self.events[self.offered[0]], self.events[self.offered[1]]

    @property
    def answer(self) -> str:
        """The one of the two that came as is asked."""
        return self.events[min(self.offered) if self.asked == "first" else max(self.offered)]

    def told(self) -> Told:
        """The sentences of the story."""
        slots = {min(self.offered): "earlier", max(self.offered): "later"}
        parts: list[Told] = []
        for index, (verb, event) in enumerate(zip(self.verbs, self.events, strict=True)):
            start = f"{'Then ' if index else ''}{self.name} {verb} the"
            slot = slots.get(index)
            parts.append(told(f"{start} {{{slot}}}.", **{slot: event}) if slot else Told(f"{start} {event}."))
        return joined(parts)

    def question(self) -> Question:
        """Which of the two it was."""
        asking = told(
            "Which came {asked}, the {option_0} or the {option_1}? The",
            asked=self.asked,
            option_0=self.options[0],
            option_1=self.options[1],
        )
        return Question(asking, self.answer, tuple(each for each in self.options if each != self.answer))


def scene(
    rng: np.random.Generator, words: Words, n_events: int | None = None, asked: str = "mixed", corrupt: str = "swap"
) -> Scene:
    """One scene; None draws the number of events. Its binding is the pair of events that the first question is about.

    Later questions are about other pairs of the same story, as far as the split allows.
    """
    n_events = int(rng.integers(2, 9)) if n_events is None else n_events
    story = _story(rng, words, n_events, asked)
    more: list[Question] = []
    for _ in range(int(rng.integers(_MOST_MORE + 1))):
        other = replace(story, offered=_offered(rng, n_events), asked=_asking(rng, asked))
        if words.allows(other.options):
            more.append(other.question())
    return _scene(story, corrupt, more)


def _scene(story: _Story, corrupt: str, more: Sequence[Question] = ()) -> Scene:
    """The story with its question; its cluster is the story, whatever is asked about it."""
    if corrupt == "swap":
        events = list(story.events)
        first, second = story.offered
        events[first], events[second] = events[second], events[first]
        other = replace(story, events=tuple(events), offered=(second, first))
    else:
        other = replace(story, asked="last" if story.asked == "first" else "first")
    return Scene(
        context=story.told(),
        questions=(story.question(), *more),
        corrupt=joined([other.told(), other.question().text]),
        binding=story.options,
        cluster=f"{story.name} {story.verbs} {story.events} {sorted(story.offered)} {story.asked}",
    )


def _in_both_orders(draw: Callable[[], _Story], corrupt: str) -> Callable[[], Scene]:
    """Scenes in pairs: each story is followed by itself with the options the other way round."""
    waiting: list[_Story] = []

    def following() -> Scene:
        if waiting:
            return _scene(waiting.pop(), corrupt)
        story = draw()
        waiting.append(replace(story, offered=story.offered[::-1]))
        return _scene(story, corrupt)

    return following


def _story(rng: np.random.Generator, words: Words, n_events: int, asked: str) -> _Story:
    story = _Story(
        name=words.draw(rng, "names", 1)[0],
        verbs=tuple(VERBS[index] for index in rng.integers(len(VERBS), size=n_events)),
        events=(),
        offered=_offered(rng, n_events),
        asked=_asking(rng, asked),
    )
    return words.first_allowed(
        lambda: replace(story, events=tuple(words.draw(rng, "nouns", n_events))), lambda drawn: [drawn.options]
    )


def _offered(rng: np.random.Generator, n_events: int) -> tuple[int, int]:
    """Two places of the story in any order."""
    first = int(rng.integers(n_events))
    return first, (first + int(rng.integers(1, n_events))) % n_events


def _asking(rng: np.random.Generator, asked: str) -> str:
    return ("first", "last")[rng.integers(2)] if asked == "mixed" else asked
