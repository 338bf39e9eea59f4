"""Entities bound in groups of three, one asked by another, with a counterfactual that tells three mechanisms apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mneme.arguments import one_of, whole_number
from mneme.bindings import bound
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.stories import Question, Scene, Told, joined, told
from mneme.words import Words, words_for

SLOTS = ("person", "container", "liquid")
KINDS = ("names", "containers", "liquids")
# (slot that is given, slot that is asked): what stands before the answer.
ASKINGS = {
    ("person", "container"): "So {question_key} fills the",
    ("person", "liquid"): "So {question_key} pours the",
    ("container", "person"): "So the {question_key} is filled by",
    ("container", "liquid"): "So the {question_key} is filled with",
    ("liquid", "person"): "So the {question_key} is poured by",
    ("liquid", "container"): "So the {question_key} is in the",
}
_FEWEST = 4  # the asked group and three others that the mechanisms point to
_FEWEST_IN_TRAINING, _MOST_IN_TRAINING = 2, 7
_MOST_QUESTIONS = 4


@dataclass(frozen=True)
class Asked:
    """Which slot is asked by which, and the group it is asked of."""

    n_groups: int
    by: str
    target: str
    group: int


@promptset(needs_tokenizer=True, source="Gur-Arieh, Geva, Geiger 2025; METHODS 13")
def entity_binding(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 200,
    split: str = "evaluation",
    n_groups: int = 6,
    by: str = "person",
    target: str = "liquid",
) -> Promptset:
    """'Mary fills a jar with tea, Tom fills a mug with coffee, ... So Mary pours the' -> tea.

    by, target: two of `person`, `container`, `liquid`, the first, second and third word of a group.
    The corrupt prompt is the counterfactual of METHODS 13. It asks another key, and with g_P, g_L, g_R three groups
    other than the asked one: the asked key is the one that g_L has in the clean prompt, it stands in group g_P, and
    its answer is the one that g_R has in the clean prompt. A model patched with the last token's residual of the
    corrupt prompt then says the clean answer of g_P if it retrieves by position, of g_L by key, of g_R by answer. Only
    these keys and answers are exchanged; the third slot stays.
    Labels: key_0 .., target_0 .. in the order told; key and target of the asked group; positional, lexical, reflexive:
    the targets of g_P, g_L, g_R in the clean prompt; question_key, end.
    Facts: n_groups, by, target, split. Wrong answers: all other words of the asked slot. Clusters: the asked group.
    Departs from METHODS 13: at least 4 groups, so that the unchanged answer is a fourth outcome.
    Raises: BadInput for `by` and `target` alike, or where the tokenizer has too few single-token words.
    """
    place = "entity_binding"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    n_groups = whole_number(f"{place}.n_groups", n_groups, _FEWEST)
    by, target = one_of(f"{place}.by", by, SLOTS), one_of(f"{place}.target", target, SLOTS)
    if by == target:
        raise BadInput(f"{place}.target is '{target}' as is {place}.by: ask for another slot than the one given")
    words = words_for(vocabulary, place, split)
    rng = np.random.default_rng(seed)
    facts = {"n_groups": n_groups, "by": by, "target": target, "split": split}

    def draw() -> Scene:
        return scene(rng, words, Asked(n_groups, by, target, int(rng.integers(n_groups))))

    return promptset_of_scenes(SceneReader(vocabulary, place), draw, n_items, facts, words.rejected)


def scene(rng: np.random.Generator, words: Words, asked: Asked | None = None) -> Scene:
    """One scene; its binding is the asked group's three words. Fewer than four groups have no corrupt counterpart.

    Without `asked` it is one for training: 2 to 7 groups, up to four of them asked, each by and for any slot.
    """
    n_questions = 1 if asked else _MOST_QUESTIONS
    if asked is None:
        n_groups = int(rng.integers(_FEWEST_IN_TRAINING, _MOST_IN_TRAINING + 1))
        asked = Asked(n_groups, *_any_slots(rng), int(rng.integers(n_groups)))
    n, group = asked.n_groups, asked.group
    columns = bound(rng, words, lambda: [words.draw(rng, kind, n) for kind in KINDS], group)
    groups = dict(zip(SLOTS, columns, strict=True))
    others = [int(each) for each in rng.permutation(n) if each != group]
    context = _told(groups, asked)
    corrupt = None
    if n >= _FEWEST:
        p, lexical, reflexive = others[:3]
        spans = {"positional": p, "lexical": lexical, "reflexive": reflexive}
        named = {name: context.spans[f"target_{at}"] for name, at in spans.items()}
        context = Told(context.text, {**context.spans, **named})
        moved = {**groups}
        moved[asked.by] = _exchanged(groups[asked.by], p, lexical)
        moved[asked.target] = _exchanged(groups[asked.target], p, reflexive)
        corrupt = joined([_told(moved, asked), _asking(asked.by, asked.target, groups[asked.by][lexical])])
    questions = [_question(groups, asked.by, asked.target, group)]
    questions += [_question(groups, *_any_slots(rng), at, is_named=False) for at in others[: n_questions - 1]]
    return Scene(
        context=context,
        questions=tuple(questions),
        corrupt=corrupt,
        binding=tuple(groups[slot][group] for slot in SLOTS),
        cluster=f"group {group}",
    )


def _any_slots(rng: np.random.Generator) -> tuple[str, str]:
    return list(ASKINGS)[int(rng.integers(len(ASKINGS)))]


def _told(groups: dict[str, list[str]], asked: Asked) -> Told:
    """The groups as a text, with the words of the given and of the asked slot named."""
    names = {asked.by: "key", asked.target: "target"}
    parts, slots = [], {}
    for at in range(asked.n_groups):
        shown = {slot: groups[slot][at] for slot in SLOTS}
        for slot, name in names.items():
            slots[f"{name}_{at}"] = shown[slot]
            shown[slot] = f"{{{name}_{at}}}"
        parts.append(f"{shown['person']} fills a {shown['container']} with {shown['liquid']}")
    text = told(f"{', '.join(parts)}.", **slots)
    return Told(text.text, {**text.spans, **{name: text.spans[f"{name}_{asked.group}"] for name in names.values()}})


def _asking(by: str, target: str, key: str) -> Told:
    return told(ASKINGS[by, target], question_key=key)


def _question(groups: dict[str, list[str]], by: str, target: str, at: int, *, is_named: bool = True) -> Question:
    text = _asking(by, target, groups[by][at])
    answer = groups[target][at]
    wrong = tuple(each for each in groups[target] if each != answer)
    return Question(text if is_named else Told(text.text), answer=answer, wrong=wrong)


def _exchanged(words: list[str], one: int, other: int) -> list[str]:
    moved = list(words)
    moved[one], moved[other] = words[other], words[one]
    return moved
